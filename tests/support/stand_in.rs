//! A stand-in for `temporal`, which acts as the real one does and misbehaves
//! on request. Compiled by the tests with nothing but the standard library. As
//! a client, `env` prints its environment.
//!
//! It keeps its records in `$STAND_IN_DIR`: `starts` (a line `pid arguments`
//! for each start), `stops` (a line `pid` for each graceful end),
//! `grandchildren` (pids), `calls` (a line for each `operator ...`: its
//! arguments and the variables that could mislead it), `namespaces/` (a file
//! for each, of lines `NAME=TYPE` and its retention). It obeys the lines of `$STAND_IN_DIR/behaviour`:
//!
//!     exit-before-serving CODE   exit instead of serving
//!     die-by SIGNAL              the same, by a signal
//!     fail-first N               the first N starts exit with 1
//!     say TEXT                   a line on stdout, with whatever else
//!     print BYTES                so many bytes of lines on stdout
//!     never-serve                answer NOT_SERVING
//!     wait-to-listen             bind no port as long as this line is there
//!     hang                       take health checks and answer nothing
//!     slow-start MS              NOT_SERVING for so long
//!     slow-schema MS             the new database is broken for so long
//!     slow-stop MS               so long from SIGTERM to the end
//!     ignore-term                no end on SIGTERM
//!     fork                       leave a grandchild in the process group
//!     operator-says TEXT         calls of `operator` fail with this text
//!     operator-hangs             they never end
//!     operator-forgets           a search attribute is refused at first, as
//!                                if its namespace were not there
//!
//! `never-serve`, `hang`, `wait-to-listen`, `ignore-term` and `operator-...` are
//! looked up each time, the others
//! at the start. A file `$STAND_IN_DIR/crash` ends it at once: with the exit
//! code that the file holds, or by the signal N of `signal N`.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const POLL: Duration = Duration::from_millis(2);
const HEALTHY_SCHEMA: &[u8] = b"a database of the stand-in\n";

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
    fn raise(number: i32) -> i32;
}

static TOLD_TO_STOP: AtomicBool = AtomicBool::new(false);

extern "C" fn on_signal(_: i32) {
    TOLD_TO_STOP.store(true, Ordering::SeqCst);
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["--version"] => println!("temporal version 9.9.9 (Server 9.9.9, UI 9.9.9)"),
        ["env"] => std::env::vars_os().for_each(|(name, value)| println!("{}={}", name.display(), value.display())),
        ["__complete", ..] => println!("workflow\tManage: workflows\noperator\tManage operators\n:4"),
        ["grandchild"] => loop {
            thread::park();
        },
        ["server", "start-dev", options @ ..] => serve(options, &arguments),
        ["operator", subject, action, options @ ..] => operate(subject, action, options),
        _ => fail("unknown command, see 'temporal --help'"),
    }
}

fn serve(options: &[&str], arguments: &[String]) {
    let before = fs::read_to_string(directory().join("starts")).unwrap_or_default().lines().count() as u64;
    append("starts", &format!("{} {}", process::id(), arguments.join(" ")));
    let option = |name: &str| value(options, name);
    if let Some(text) = behaviour("say") {
        println!("{text}");
    }
    if let Some(bytes) = number("print") {
        print_bytes(bytes);
    }
    if before < number("fail-first").unwrap_or(0) {
        fail("failing as requested");
    }
    if let Some(code) = number("exit-before-serving") {
        process::exit(code as i32);
    }
    if let Some(signal) = number("die-by") {
        die_by(signal as i32);
    }
    let database = option("--db-filename").map(PathBuf::from);
    if let Some(database) = &database {
        open(database);
    }
    while behaviour("wait-to-listen").is_some() {
        thread::sleep(POLL);
    }
    let ip = option("--ip").unwrap_or("127.0.0.1");
    let port = option("--port").unwrap_or("7233");
    let frontend = listen(ip, port, "frontend");
    let ui = match options.contains(&"--headless") {
        true => None,
        false => Some(listen(ip, option("--ui-port").unwrap_or("8233"), "UI")),
    };
    for number in [SIGHUP, SIGINT, SIGTERM] {
        // SAFETY: the handler only stores to an atomic.
        unsafe { signal(number, on_signal as *const () as usize) };
    }
    if behaviour("fork").is_some() {
        let this = std::env::current_exe().unwrap_or_else(|error| fail(&error.to_string()));
        let grandchild = Command::new(this).arg("grandchild").spawn().unwrap_or_else(|error| fail(&error.to_string()));
        append("grandchildren", &grandchild.id().to_string());
    }
    println!("Temporal CLI 9.9.9 (Server 9.9.9, UI 9.9.9)\n\nTemporal Server:  {ip}:{port}");
    let _ = io::stdout().flush();
    let serving_from = Instant::now() + Duration::from_millis(number("slow-start").unwrap_or(0));
    thread::spawn(move || accept(&frontend, move |stream| answer_health(stream, serving_from)));
    if let Some(ui) = ui {
        thread::spawn(move || accept(&ui, answer_page));
    }
    run();
}

fn value<'a>(options: &[&'a str], name: &str) -> Option<&'a str> {
    options.iter().enumerate().rev().find_map(|(at, option)| match option.strip_prefix(name)? {
        "" => options.get(at + 1).copied(),
        rest => rest.strip_prefix('='),
    })
}

/// A client of the running server, in the words of the real one.
fn operate(subject: &str, action: &str, options: &[&str]) {
    let misleading = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let misleading = misleading.filter(|name| name.starts_with("TEMPORAL_") || name.to_uppercase().ends_with("_PROXY"));
    let misleading: Vec<_> = misleading.collect();
    append("calls", &format!("{subject} {action} {} {}", options.join(" "), misleading.join(" ")));
    while behaviour("operator-hangs").is_some() {
        thread::sleep(POLL);
    }
    if let Some(text) = behaviour("operator-says") {
        complain(&text);
    }
    let given = |name: &str| value(options, name).unwrap_or_else(|| complain(&format!("{name} is missing")));
    if let Err(error) = TcpStream::connect(given("--address")) {
        complain(&format!("failed connecting to Temporal server: {error}"));
    }
    let name = given("--namespace");
    let file = directory().join("namespaces").join(name);
    let found = fs::read_to_string(&file).ok();
    // The server makes it, with 24 hours of retention.
    let found = found.or_else(|| (name == "default").then(|| "86400s\n".to_owned()));
    let text = match (subject, action, found) {
        ("namespace", "create", Some(_)) => {
            complain(&format!("unable to create namespace {name}: Namespace \"{name}\" already exists"))
        }
        ("namespace", "create", None) => format!("{}\n", given("--retention")),
        (_, _, None) => complain(&format!("Namespace {name} is not found.")),
        ("namespace", "describe", Some(found)) => return describe(name, &found),
        ("namespace", "update", Some(found)) => {
            let (_, attributes) = found.split_once('\n').unwrap_or_default();
            format!("{}\n{attributes}", given("--retention"))
        }
        ("search-attribute", "create", _) if behaviour("operator-forgets").is_some() && forgot(name) => {
            complain(&format!("unable to get existing search attributes: Namespace {name} is not found."))
        }
        ("search-attribute", "create", Some(found)) => format!("{found}{}={}\n", given("--name"), given("--type")),
        _ => complain("unknown command"),
    };
    if let Err(error) = fs::create_dir_all(directory().join("namespaces")).and_then(|()| fs::write(&file, text)) {
        complain(&format!("cannot write {}: {error}", file.display()));
    }
    println!("done");
}

/// The first time.
fn forgot(name: &str) -> bool {
    fs::File::create_new(directory().join(format!("forgot-{name}"))).is_ok()
}

fn describe(name: &str, found: &str) {
    let mut lines = found.lines();
    println!("{{\n  \"namespaceInfo\": {{\n    \"name\": \"{name}\"\n  }},\n  \"config\": {{");
    println!("    \"workflowExecutionRetentionTtl\": \"{}\",", lines.next().unwrap_or_default());
    let columns = lines.filter_map(|line| line.split_once('=')).enumerate();
    let columns: Vec<_> = columns.map(|(at, (name, kind))| format!("      \"{kind}{at:02}\": \"{name}\"")).collect();
    println!("    \"customSearchAttributeAliases\": {{\n{}\n    }}\n  }}\n}}", columns.join(",\n"));
}

fn complain(message: &str) -> ! {
    eprintln!("Error: {message}");
    process::exit(1)
}

/// Waits for the end, which comes by a signal or by the file `crash`.
fn run() {
    let crash = directory().join("crash");
    loop {
        if TOLD_TO_STOP.load(Ordering::SeqCst) && behaviour("ignore-term").is_none() {
            thread::sleep(Duration::from_millis(number("slow-stop").unwrap_or(0)));
            append("stops", &process::id().to_string());
            process::exit(0);
        }
        if let Ok(how) = fs::read_to_string(&crash) {
            // One file is one crash, of one process.
            if fs::remove_file(&crash).is_ok() {
                match how.trim().strip_prefix("signal ") {
                    Some(number) => die_by(number.trim().parse().unwrap_or(6)),
                    None => process::exit(how.trim().parse().unwrap_or(1)),
                }
            }
        }
        thread::sleep(POLL);
    }
}

/// Makes the database where there is none; like the real one it never repairs
/// one whose making was cut short, and looks by one name for the file that
/// SQLite opens by another.
fn open(name: &PathBuf) {
    let database = &uri_path(name);
    if !name.exists() && database.exists() {
        fail("failed setting up schema: SQL logic error: table namespaces already exists (1)");
    }
    match fs::read(database) {
        Ok(content) if content == HEALTHY_SCHEMA => {}
        Ok(_) => {
            println!("Error: failed to start: SQL logic error: no such table: namespaces (1)");
            process::exit(1);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = fs::write(database, "half a schema\n").and_then(|()| {
                thread::sleep(Duration::from_millis(number("slow-schema").unwrap_or(0)));
                fs::write(database, HEALTHY_SCHEMA)
            });
            if let Err(error) = made {
                fail(&format!("unable to open database file {}: {error}", database.display()));
            }
        }
        Err(error) => fail(&format!("unable to open database file {}: {error}", database.display())),
    }
}

/// The file that SQLite finds in the URI `file:NAME`.
fn uri_path(name: &Path) -> PathBuf {
    let text = name.to_str().unwrap_or_else(|| fail("string field contains invalid UTF-8"));
    let mut rest = text.split(['?', '#']).next().unwrap_or_default().as_bytes().iter().copied();
    let mut path = Vec::new();
    while let Some(byte) = rest.next() {
        let digits = rest.clone().take(2).collect::<Vec<_>>();
        let digits = std::str::from_utf8(&digits).ok();
        match digits.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                path.push(decoded);
                rest.nth(1);
            }
            None => path.push(byte),
        }
    }
    std::ffi::OsString::from_vec(path).into()
}

fn listen(ip: &str, port: &str, what: &str) -> TcpListener {
    let address = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    TcpListener::bind(&address).unwrap_or_else(|error| {
        let cause = match error.kind() {
            io::ErrorKind::AddrInUse => "bind: address already in use".to_owned(),
            _ => error.to_string(),
        };
        fail(&format!("can't set {what} port {port}: listen tcp {address}: {cause}"))
    })
}

fn accept(listener: &TcpListener, answer: impl Fn(TcpStream) + Clone + Send + 'static) {
    for stream in listener.incoming().flatten() {
        let answer = answer.clone();
        thread::spawn(move || answer(stream));
    }
}

fn answer_page(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 4096]);
    let page = "<!doctype html><title>stand-in</title>\n";
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{page}",
        page.len()
    );
}

/// As much of HTTP/2 (RFC 9113) and gRPC as one health check takes.
fn answer_health(mut stream: TcpStream, serving_from: Instant) {
    if behaviour("hang").is_some() {
        let _ = io::copy(&mut stream, &mut io::sink());
        return;
    }
    let mut preface = [0; 24];
    if stream.read_exact(&mut preface).is_err() || !preface.starts_with(b"PRI * HTTP/2.0") {
        return;
    }
    if send(&mut stream, 4, 0, 0, &[]).is_err() {
        return;
    }
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        if stream.read_exact(&mut payload).is_err() {
            return;
        }
        let sent = match (head[3], head[4]) {
            // SETTINGS and PING, each without its ACK
            (4, 0) => send(&mut stream, 4, 1, 0, &[]),
            (6, 0) => send(&mut stream, 6, 1, 0, &payload),
            // DATA that ends the request
            (0, flags) if flags & 1 == 1 => {
                let serving = Instant::now() >= serving_from && behaviour("never-serve").is_none();
                let status = if serving { 1 } else { 2 };
                // :status 200 from the static table, then a literal field
                let mut headers = vec![0x88];
                literal(&mut headers, "content-type", "application/grpc");
                let mut trailers = Vec::new();
                literal(&mut trailers, "grpc-status", "0");
                send(&mut stream, 1, 4, number, &headers)
                    .and_then(|()| send(&mut stream, 0, 0, number, &[0, 0, 0, 0, 2, 8, status]))
                    .and_then(|()| send(&mut stream, 1, 5, number, &trailers))
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        block.push(text.len() as u8);
        block.extend_from_slice(text.as_bytes());
    }
}

fn send(stream: &mut TcpStream, kind: u8, flags: u8, number: u32, payload: &[u8]) -> io::Result<()> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&number.to_be_bytes());
    frame.extend_from_slice(payload);
    stream.write_all(&frame)
}

fn print_bytes(mut left: u64) {
    let line = format!("{}\n", "x".repeat(99));
    let mut stdout = io::stdout().lock();
    while left > 0 {
        let count = left.min(line.len() as u64) as usize;
        if stdout.write_all(&line.as_bytes()[line.len() - count..]).is_err() {
            return;
        }
        left -= count as u64;
    }
}

fn directory() -> PathBuf {
    match std::env::var_os("STAND_IN_DIR") {
        Some(directory) => directory.into(),
        None => fail("STAND_IN_DIR is not set"),
    }
}

/// What stands behind `name` in the file of behaviours; None without a line.
fn behaviour(name: &str) -> Option<String> {
    let text = fs::read_to_string(directory().join("behaviour")).ok()?;
    text.lines().find_map(|line| {
        let rest = line.trim().strip_prefix(name)?;
        (rest.is_empty() || rest.starts_with(' ')).then(|| rest.trim().to_owned())
    })
}

fn number(name: &str) -> Option<u64> {
    behaviour(name)?.parse().ok()
}

fn append(name: &str, line: &str) {
    let path = directory().join(name);
    let file = fs::OpenOptions::new().create(true).append(true).open(&path);
    // One write for a line, so that lines of two processes do not mix.
    let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    if let Err(error) = written {
        fail(&format!("cannot write {}: {error}", path.display()));
    }
}

fn die_by(number: i32) -> ! {
    // SAFETY: both calls take plain numbers; 0 is SIG_DFL.
    unsafe {
        signal(number, 0);
        raise(number);
    }
    process::exit(1)
}

fn fail(message: &str) -> ! {
    println!("Error: {message}");
    process::exit(1)
}

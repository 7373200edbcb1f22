//! A stand-in for `temporal`, which acts as the real one does and misbehaves
//! on request. Compiled by the tests with nothing but the standard library. As
//! a client, `env` prints its environment.
//!
//! It keeps its records in `$STAND_IN_DIR`: `starts` (a line `pid arguments`
//! for each start), `stops` (a line `pid` for each graceful end),
//! `grandchildren` (pids), `calls` (a line for each call about a namespace:
//! the method, the namespace and what it shall have), `namespaces/` (a file for
//! each: its retention, then lines `NAME=TYPE`). It obeys the lines of
//! `$STAND_IN_DIR/behaviour`:
//!
//!     exit-before-serving CODE   exit instead of serving
//!     die-by SIGNAL              the same, by a signal
//!     fail-first N               the first N starts exit with 1
//!     say TEXT                   a line on stdout, with whatever else
//!     print BYTES                so many bytes of lines on stdout
//!     count                      lines `count N` on stdout as long as it runs
//!     never-serve                answer NOT_SERVING
//!     wait-to-listen             bind no port as long as this line is there
//!     hang                       take health checks and answer nothing
//!     slow-start MS              NOT_SERVING for so long
//!     late-banner                name the version when this line is gone
//!     slow-schema MS             the new database is broken for so long
//!     slow-stop MS               so long from SIGTERM to the end
//!     ignore-term                no end on SIGTERM
//!     fork                       leave a grandchild in the process group
//!     refuse-calls TEXT          calls about namespaces fail with this text
//!     hang-calls                 they are never answered
//!     forget-namespaces          a search attribute is refused at first, as
//!                                if its namespace were not there
//!     refuse-home VERSION        that version fails on the home's database
//!     hold-home VERSION          it never serves it
//!
//! With a line `stand-in VERSION SCHEMA` behind its executable it is that version,
//! and makes real databases, by the program `sqlite3`, of one of two schemas.
//!
//! `never-serve`, `hang`, `wait-to-listen`, `ignore-term`, `late-banner` and those about calls
//! are looked up each time, the others at the start. A file `$STAND_IN_DIR/crash` ends it at once: with the exit
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
        ["--version"] => println!("temporal version {} (Server 9.9.9, UI 9.9.9)", identity().0),
        ["env"] => std::env::vars_os().for_each(|(name, value)| println!("{}={}", name.display(), value.display())),
        ["__complete", ..] => println!("workflow\tManage: workflows\noperator\tManage operators\n:4"),
        ["grandchild"] => loop {
            thread::park();
        },
        ["server", "start-dev", options @ ..] => serve(options, &arguments),
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
    if behaviour("count").is_some() {
        thread::spawn(count);
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
    let is_file = |name: &&str| !name.is_empty() && *name != ":memory:";
    let database = option("--db-filename").filter(is_file).map(PathBuf::from);
    if let Some(database) = &database {
        open(database);
    }
    let is_told = |name: &str| {
        let is_home = database.as_ref().is_some_and(|path| path.ends_with("temporal.db"));
        is_home && behaviour(name).is_some_and(|version| version == identity().0)
    };
    if is_told("refuse-home") {
        fail("failing on this database as requested");
    }
    while is_told("hold-home") {
        thread::sleep(POLL);
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
    let banner = format!("Temporal CLI {} (Server 9.9.9, UI 9.9.9)\n\nTemporal Server:  {ip}:{port}", identity().0);
    if behaviour("late-banner").is_none() {
        say(&banner);
    } else {
        thread::spawn(move || {
            while behaviour("late-banner").is_some() {
                thread::sleep(POLL);
            }
            say(&banner);
        });
    }
    let serving_from = Instant::now() + Duration::from_millis(number("slow-start").unwrap_or(0));
    thread::spawn(move || accept(&frontend, move |stream| answer_calls(stream, serving_from)));
    if let Some(ui) = ui {
        thread::spawn(move || accept(&ui, answer_page));
    }
    run();
}

fn say(text: &str) {
    println!("{text}");
    let _ = io::stdout().flush();
}

fn value<'a>(options: &[&'a str], name: &str) -> Option<&'a str> {
    options.iter().enumerate().rev().find_map(|(at, option)| match option.strip_prefix(name)? {
        "" => options.get(at + 1).copied(),
        rest => rest.strip_prefix('='),
    })
}

/// A call about a namespace: the response, or status and text of a refusal.
fn answer_call(path: &str, request: &[u8]) -> Result<Vec<u8>, (u32, String)> {
    const NOT_FOUND: u32 = 5;
    const ALREADY_EXISTS: u32 = 6;
    const FAILED_PRECONDITION: u32 = 9;
    const UNIMPLEMENTED: u32 = 12;
    let method = path.rsplit('/').next().unwrap_or_default();
    let (name, wanted) = match method {
        "RegisterNamespace" => (text(request, 1), format!("{}s", number_in(part(request, 4), 1))),
        "UpdateNamespace" => (text(request, 1), format!("{}s", number_in(part(part(request, 3), 1), 1))),
        "DescribeNamespace" => (text(request, 1), String::new()),
        "AddSearchAttributes" => {
            let entry = part(request, 1);
            (text(request, 2), format!("{}={}", text(entry, 1), KINDS[number_in(entry, 2) as usize - 1]))
        }
        _ => return Err((UNIMPLEMENTED, format!("unknown method {path}"))),
    };
    append("calls", format!("{method} {name} {wanted}").trim_end());
    while behaviour("hang-calls").is_some() {
        thread::sleep(POLL);
    }
    if let Some(text) = behaviour("refuse-calls") {
        return Err((FAILED_PRECONDITION, text));
    }
    let file = directory().join("namespaces").join(&name);
    let found = fs::read_to_string(&file).ok();
    // The server makes it, with 24 hours of retention.
    let found = found.or_else(|| (name == "default").then(|| "86400s\n".to_owned()));
    let new = match (method, found) {
        ("RegisterNamespace", Some(_)) => return Err((ALREADY_EXISTS, "Namespace already exists.".into())),
        ("RegisterNamespace", None) => format!("{wanted}\n"),
        (_, None) => return Err((NOT_FOUND, format!("Namespace {name} is not found."))),
        ("AddSearchAttributes", _) if behaviour("forget-namespaces").is_some() && forgot(&name) => {
            return Err((NOT_FOUND, format!("Namespace {name} is not found.")));
        }
        ("DescribeNamespace", Some(found)) => return Ok(describe(&found)),
        ("UpdateNamespace", Some(found)) => {
            let (_, attributes) = found.split_once('\n').unwrap_or_default();
            format!("{wanted}\n{attributes}")
        }
        (_, Some(found)) => format!("{found}{wanted}\n"),
    };
    let written = fs::create_dir_all(directory().join("namespaces")).and_then(|()| fs::write(&file, new));
    written.map(|()| Vec::new()).map_err(|error| (FAILED_PRECONDITION, error.to_string()))
}

/// The first time.
fn forgot(name: &str) -> bool {
    fs::File::create_new(directory().join(format!("forgot-{name}"))).is_ok()
}

/// As Temporal numbers the types of search attributes.
const KINDS: [&str; 7] = ["Text", "Keyword", "Int", "Double", "Bool", "Datetime", "KeywordList"];

fn describe(found: &str) -> Vec<u8> {
    let mut lines = found.lines();
    let retention: u32 = lines.next().and_then(|line| line.strip_suffix('s')?.parse().ok()).unwrap_or(0);
    let mut seconds = vec![8];
    seconds.extend((0..5).map(|at| (retention >> (7 * at)) as u8 & 127 | if at < 4 { 128 } else { 0 }));
    let mut config = field(1, &seconds);
    for (at, (name, kind)) in lines.filter_map(|line| line.split_once('=')).enumerate() {
        let column = format!("{kind}{at:02}");
        config.extend(field(7, &[field(1, column.as_bytes()), field(2, name.as_bytes())].concat()));
    }
    field(2, &config)
}

/// A field of Protocol Buffers, of less than 16 kB.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    [&[number << 3 | 2, length as u8 | 128, (length >> 7) as u8], content].concat()
}

/// The number and the bytes of each field, one of which is empty.
fn fields(mut message: &[u8]) -> Vec<(u64, u64, &[u8])> {
    fn number(message: &mut &[u8]) -> Option<u64> {
        let length = message.iter().position(|byte| *byte < 128)? + 1;
        let bytes = message.split_off(..length)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 7 | u64::from(byte & 127)))
    }
    let mut next = || {
        let head = number(&mut message)?;
        let value = number(&mut message)?;
        match head & 7 {
            0 => Some((head >> 3, value, &[][..])),
            2 => Some((head >> 3, 0, message.split_off(..value as usize)?)),
            _ => None,
        }
    };
    std::iter::from_fn(&mut next).collect()
}

fn part(message: &[u8], wanted: u64) -> &[u8] {
    fields(message).into_iter().find(|(field, ..)| *field == wanted).map_or(&[], |(.., bytes)| bytes)
}

fn text(message: &[u8], wanted: u64) -> String {
    String::from_utf8_lossy(part(message, wanted)).into_owned()
}

fn number_in(message: &[u8], wanted: u64) -> u64 {
    fields(message).into_iter().find(|(field, ..)| *field == wanted).map_or(0, |(_, number, _)| number)
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
    if let Some(schema) = identity().1 {
        if !database.exists() {
            make(database, schema);
        }
        return;
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

/// Version and schema.
fn identity() -> (String, Option<usize>) {
    let bytes = std::env::current_exe().and_then(fs::read).unwrap_or_default();
    let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(64)..]).into_owned();
    let told = end.rsplit_once("\nstand-in ").and_then(|(_, told)| told.trim_end().split_once(' '));
    match told {
        Some((version, schema)) => (version.to_owned(), schema.parse().ok()),
        None => ("9.9.9".into(), None),
    }
}

/// The tables of each schema, and one row. The second has a table, a column
/// and a generated one more, and an index for search of its own.
const SCHEMAS: [&str; 2] = [
    "CREATE TABLE namespaces(id TEXT PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE queue(topic TEXT, number INT, PRIMARY KEY (topic, number)) WITHOUT ROWID;
    CREATE TABLE executions(id TEXT PRIMARY KEY, data BLOB, words TEXT);
    CREATE VIRTUAL TABLE search USING fts5(words, content='executions');
    CREATE TRIGGER added AFTER INSERT ON executions BEGIN
      INSERT INTO search(rowid, words) VALUES (new.rowid, new.words); END;
    CREATE TRIGGER deleted AFTER DELETE ON executions BEGIN
      INSERT INTO search(search, rowid, words) VALUES ('delete', old.rowid, old.words); END;
    INSERT INTO namespaces VALUES ('system', x'00');",
    "CREATE TABLE namespaces(id TEXT PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE queue(topic TEXT, number INT, PRIMARY KEY (topic, number)) WITHOUT ROWID;
    CREATE TABLE chasm(id TEXT PRIMARY KEY, data BLOB);
    CREATE TABLE executions(id TEXT PRIMARY KEY, data BLOB, words TEXT, extra TEXT,
      length INT GENERATED ALWAYS AS (length(words)) STORED);
    CREATE INDEX by_length ON executions(length);
    CREATE VIRTUAL TABLE search USING fts5(words, extra, content='executions');
    CREATE TRIGGER added AFTER INSERT ON executions BEGIN
      INSERT INTO search(rowid, words, extra) VALUES (new.rowid, new.words, new.extra); END;
    CREATE TRIGGER deleted AFTER DELETE ON executions BEGIN
      INSERT INTO search(search, rowid, words, extra) VALUES ('delete', old.rowid, old.words, old.extra); END;
    INSERT INTO namespaces VALUES ('system', x'00');",
];

fn make(database: &Path, schema: usize) {
    let made = Command::new("/usr/bin/env")
        .env("PATH", std::env::var_os("STAND_IN_PATH").unwrap_or_else(|| "/usr/bin:/bin".into()))
        .args(["sqlite3", "-batch", "-bail", "-init", "/dev/null"])
        .arg(database)
        .arg(SCHEMAS[schema - 1])
        .status();
    if !made.is_ok_and(|status| status.success()) {
        fail(&format!("unable to open database file {}: no sqlite3", database.display()));
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

/// As much of HTTP/2 (RFC 9113) and gRPC as calls one after the other take.
fn answer_calls(mut stream: TcpStream, serving_from: Instant) {
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
    let (mut path, mut request) = (String::new(), Vec::new());
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
            (1, _) => {
                path = path_in(&payload);
                Ok(())
            }
            (0, flags) => {
                request.extend_from_slice(&payload);
                match flags & 1 {
                    1 => answer(&mut stream, number, &path, &std::mem::take(&mut request), serving_from),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// `:path` among headers as our client writes them: literal, not compressed.
fn path_in(block: &[u8]) -> String {
    let text = String::from_utf8_lossy(block);
    let (_, rest) = text.split_once(":path").unwrap_or_default();
    let length = rest.bytes().next().unwrap_or(0) as usize;
    rest.get(1..1 + length).unwrap_or_default().to_owned()
}

fn answer(
    stream: &mut TcpStream,
    number: u32,
    path: &str,
    request: &[u8],
    serving_from: Instant,
) -> io::Result<()> {
    let answer = match path {
        "/grpc.health.v1.Health/Check" => {
            let serving = Instant::now() >= serving_from && behaviour("never-serve").is_none();
            Ok(vec![8, if serving { 1 } else { 2 }])
        }
        // Behind the byte that says it is not compressed, and its length.
        _ => answer_call(path, request.get(5..).unwrap_or_default()),
    };
    // :status 200 from the static table, then a literal field
    let mut headers = vec![0x88];
    literal(&mut headers, "content-type", "application/grpc");
    send(stream, 1, 4, number, &headers)?;
    let mut trailers = Vec::new();
    match answer {
        Ok(message) => {
            let length = (message.len() as u32).to_be_bytes();
            send(stream, 0, 0, number, &[&[0], &length[..], &message].concat())?;
            literal(&mut trailers, "grpc-status", "0");
        }
        Err((code, text)) => {
            literal(&mut trailers, "grpc-status", &code.to_string());
            literal(&mut trailers, "grpc-message", &text);
        }
    }
    send(stream, 1, 5, number, &trailers)
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

fn count() {
    for number in 1_u64.. {
        println!("count {number}");
        thread::sleep(POLL / 10);
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

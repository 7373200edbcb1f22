//! A download that arrives whole, or says why not, on any network.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::archive::{
    PINNED_VERSION, VERSION, asset_path, checksums, checksums_path, executable, noise, release, small_release,
};
use crate::support::http::base64;
use crate::support::server::DeadPort;
use crate::support::stand_in_build::stand_in_bytes;
use crate::support::*;

fn install<'h>(home: &'h Home, base: &str) -> Stigmer<'h> {
    home.stigmer(["local", "run"]).with_mirror(VERSION, base).args(["--", "true"])
}

fn asset() -> String {
    asset_path(VERSION)
}

#[track_caller]
fn assert_installed(home: &Home, executable: &[u8]) {
    let installed = fs::read(home.temporal()).unwrap_or_else(|error| panic!("{error}\n{}", home.describe()));
    assert!(installed == executable, "bin/temporal has other bytes\n{}", home.describe());
    assert_eq!(home.bin_names(), ["temporal", "temporal.receipt"]);
}

/// Each request goes on exactly where the one before was cut off.
#[track_caller]
pub fn assert_nothing_fetched_twice(requests: &[Request], total: u64) {
    let mut position = 0;
    for request in requests {
        assert_eq!(request.range_start().unwrap_or(0), position, "{requests:#?}");
        let (start, count) = request.served.unwrap_or((position, 0));
        assert_eq!(start, position);
        position += count;
    }
    assert_eq!(position, total);
}

/// One install over a hundred cut connections, and others over one that
/// stalls or drips: that takes 15 s, so those run side by side.
#[test]
fn a_connection_cut_at_100_points_is_resumed_and_no_byte_is_fetched_twice() {
    let content = executable(3 << 20, 11);
    let archive = release(&content);
    let total = archive.len() as u64;
    let step = |number: u64| total * (number + 1) / 100 - total * number / 100;
    let cuts = (0..100).map(|number| {
        // The first cut comes before the first byte.
        let count = if number == 0 { 0 } else { step(number - 1) };
        Reply::Cut(count, if number % 2 == 0 { Cut::Reset } else { Cut::Close })
    });
    let mut plans = vec![(cuts.collect::<Vec<_>>(), " (resumed 99 times)")];
    plans.extend((1..=8).map(|point| (vec![Reply::Cut(total * point / 9, Cut::Stall)], " (resumed once)")));
    plans.push((vec![Reply::Silence], ""));
    // Something comes all the time, but never enough.
    plans.push((vec![Reply::Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n")], ""));
    plans.push((vec![Reply::Endless(b"HTTP/1.1 200 OK\r\nX-Drip: ", b"x")], ""));
    in_parallel(plans.len(), plans, |(replies, said)| {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, &archive);
        let count = replies.len();
        server.script(&asset(), replies);
        let outcome = install(&home, &server.base()).run();
        outcome.success().stderr_has(&format!("100%{said}\n"));
        if count == 1 {
            // It took longer than ten seconds, so there is a line for whoever waits.
            outcome.stderr_has(if said.is_empty() { "Trying again (2 of 6): 127.0.0.1" } else { "% (" });
        }
        assert_installed(&home, &content);
        let requests = server.requests_for(&asset());
        assert_eq!(requests.len(), count + 1);
        assert_nothing_fetched_twice(&requests, total);
        let etag = format!("\"{}\"", &sha256(&archive)[..16]);
        for request in &requests {
            assert_eq!(request.header("if-range"), request.range_start().map(|_| etag.as_str()), "{request:?}");
        }
    });
}

#[test]
fn a_drip_is_given_up_even_within_a_chunks_length_or_under_tls() {
    let home = Home::new();
    let (secure, ca) = tls_server(&home, &["127.0.0.1"]);
    let plain = || ReleaseServer::with_release(VERSION, small_release());
    let (body, length) = (plain(), plain());
    for server in [&secure, &body] {
        server.script(&asset(), [Reply::Cut(half(), Cut::Drip)]);
    }
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    length.script(&asset(), [Reply::Endless(chunked, b"0")]);
    in_parallel(3, [&secure, &body, &length], |server| {
        let home = Home::new();
        install(&home, &server.base()).env("SSL_CERT_FILE", &ca).run().success();
        assert_installed(&home, stand_in_bytes());
    });
    for server in [&secure, &body] {
        let requests = server.requests_for(&asset());
        assert_eq!(requests.len(), 2, "{requests:#?}");
        assert!(requests[1].range_start().is_some_and(|start| start > half()), "{requests:#?}");
    }
}

/// What comes of a reply, or of a few in a row.
enum Wanted {
    /// Installed, after so many requests for the asset.
    Installed(usize),
    /// Refused with these words.
    Refused(&'static [&'static str]),
}
use Wanted::{Installed, Refused};

struct Fault {
    what: &'static str,
    replies: Vec<Reply>,
    /// What comes after them; None: the file.
    always: Option<Reply>,
    wanted: Wanted,
}

fn fault(what: &'static str, replies: Vec<Reply>, wanted: Wanted) -> Fault {
    Fault { what, replies, always: None, wanted }
}

fn constant_fault(what: &'static str, reply: Reply, wanted: Wanted) -> Fault {
    Fault { what, replies: Vec::new(), always: Some(reply), wanted }
}

/// How a missing release is reported.
fn not_found() -> &'static [&'static str] {
    let platform: &'static str = Box::leak(platform().replace('_', "/").into_boxed_str());
    Box::leak(Box::new([VERSION, platform, "hint: ", "--temporal-version"]))
}

fn with_head(head: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {head}\r\n\r\n").as_bytes(), body].concat()
}

fn chunked(parts: &[&[u8]], end: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for part in parts {
        body.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        body.extend_from_slice(part);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(end);
    with_head("200 OK\r\nTransfer-Encoding: chunked", &body)
}

/// The archive from its tenth byte on, as an answer that nobody asked for.
fn part_from_ten() -> Reply {
    let archive = small_release();
    Reply::Part(format!("bytes 10-{}/{}", archive.len() - 1, archive.len()), archive[10..].to_vec())
}

fn half() -> u64 {
    small_release().len() as u64 / 2
}

fn statuses() -> Vec<Fault> {
    vec![
        constant_fault("404", Reply::status("404 Not Found"), Refused(not_found())),
        constant_fault("410", Reply::status("410 Gone"), Refused(not_found())),
        constant_fault("403", Reply::status("403 Forbidden"), Refused(&["127.0.0.1", "rate-limited", "403", "hint: "])),
        constant_fault(
            "429 for an hour",
            Reply::retry_after("429 Too Many Requests", "3600"),
            Refused(&["rate-limited", "429", "3600 s", "hint: "]),
        ),
        constant_fault(
            "403 for an hour",
            Reply::retry_after("403 Forbidden", "3600"),
            Refused(&["rate-limited", "3600 s"]),
        ),
        constant_fault(
            "429 without end",
            Reply::status("429 Too Many Requests"),
            Refused(&["rate-limited", "429", "6 attempts"]),
        ),
        fault("429 for a second", vec![Reply::retry_after("429 Too Many Requests", "1")], Installed(2)),
        fault("403 for a second", vec![Reply::retry_after("403 Forbidden", "1")], Installed(2)),
        fault("429 and no word of when", vec![Reply::status("429 Too Many Requests")], Installed(2)),
        fault("429 and nonsense", vec![Reply::retry_after("429 Too Many Requests", "soon")], Installed(2)),
        fault(
            "500, 502, 503, 504, 408",
            vec![
                Reply::status("500 Internal Server Error"),
                Reply::status("502 Bad Gateway"),
                Reply::retry_after("503 Service Unavailable", "0"),
                Reply::status("504 Gateway Timeout"),
                Reply::status("408 Request Timeout"),
            ],
            Installed(6),
        ),
        constant_fault(
            "500 for ever",
            Reply::status("500 Internal Server Error"),
            Refused(&["127.0.0.1", "500", "6 attempts", "hint: "]),
        ),
        constant_fault("401", Reply::status("401 Unauthorized"), Refused(&["401", "hint: "])),
        constant_fault("418", Reply::status("418 I'm a teapot"), Refused(&["418", "hint: "])),
        constant_fault("204", Reply::status("204 No Content"), Refused(&["204", "hint: "])),
        constant_fault("206 unasked", part_from_ten(), Refused(&["206", "hint: "])),
        constant_fault("304 unasked", Reply::status("304 Not Modified"), Refused(&["304", "hint: "])),
    ]
}

fn connections() -> Vec<Fault> {
    let total = small_release().len();
    vec![
        fault("closed before the answer", vec![Reply::Nothing, Reply::Nothing], Installed(3)),
        constant_fault("always closed", Reply::Nothing, Refused(&["127.0.0.1", "6 attempts", "hint: "])),
        constant_fault(
            "another protocol",
            Reply::Raw(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()),
            Refused(&["127.0.0.1", "6 attempts"]),
        ),
        fault("half() a head", vec![Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec())], Installed(2)),
        fault("closed in the middle", vec![Reply::Cut(half(), Cut::Close)], Installed(2)),
        fault("reset in the middle", vec![Reply::Cut(half(), Cut::Reset)], Installed(2)),
        fault("reset before the first byte", vec![Reply::Cut(0, Cut::Reset)], Installed(2)),
        fault("closed one byte before the end", vec![Reply::Cut(total as u64 - 1, Cut::Close)], Installed(2)),
        fault(
            "many failures with progress between",
            (0..8).flat_map(|_| [Reply::Nothing, Reply::Cut(16 << 10, Cut::Close)]).collect(),
            Installed(17),
        ),
        Fault {
            what: "a byte for each connection",
            replies: vec![],
            always: Some(Reply::Cut(1, Cut::Close)),
            wanted: Refused(&["6 attempts", "bytes"]),
        },
        Fault {
            what: "six failures in a row in the middle",
            replies: vec![Reply::Cut(half(), Cut::Close)],
            always: Some(Reply::Nothing),
            wanted: Refused(&["6 attempts", "bytes"]),
        },
    ]
}

fn lengths() -> Vec<Fault> {
    let archive = small_release();
    let total = archive.len();
    let (first, second) = archive.split_at(total / 2);
    let longer = with_head(&format!("200 OK\r\nContent-Length: {}", total + 10), archive);
    let shorter = with_head(&format!("200 OK\r\nContent-Length: {}", total - 10), &archive[..total - 10]);
    vec![
        fault("a length that is too long", vec![Reply::Raw(longer)], Installed(3)),
        fault("a length that is too short", vec![Reply::Raw(shorter)], Refused(&["cannot unpack", "hint: "])),
        fault("chunked", vec![Reply::Raw(chunked(&[first, second], b"0\r\n\r\n"))], Installed(1)),
        // It has no validator, so what comes next may be of another file.
        fault("chunked and cut", vec![Reply::Raw(chunked(&[first], b""))], Installed(3)),
        fault("the end of the connection is the end", vec![Reply::Raw(with_head("200 OK", archive))], Installed(1)),
    ]
}

fn ranges() -> Vec<Fault> {
    let total = small_release().len();
    vec![
        fault("a part that begins elsewhere", vec![Reply::Cut(half(), Cut::Close), part_from_ten()], Installed(3)),
        fault(
            "a part of another file",
            vec![
                Reply::Cut(half(), Cut::Close),
                Reply::Part(
                    format!("bytes {}-{}/{}", half(), total + 4, total + 5),
                    noise(total - half() as usize + 5, 1),
                ),
            ],
            Installed(3),
        ),
        fault(
            "a part that is nonsense",
            vec![Reply::Cut(half(), Cut::Close), Reply::Part("bytes ?".into(), Vec::new())],
            Installed(3),
        ),
        fault(
            "no such part",
            vec![Reply::Cut(half(), Cut::Close), Reply::status("416 Range Not Satisfiable")],
            Installed(3),
        ),
        fault(
            "404 when it was resumed",
            vec![Reply::Cut(half(), Cut::Close), Reply::status("404 Not Found")],
            Refused(not_found()),
        ),
        fault("500 when it was resumed", vec![Reply::Cut(half(), Cut::Close), Reply::status("500 Oops")], Installed(3)),
    ]
}

fn contents() -> Vec<Fault> {
    vec![
        constant_fault(
            "a web page",
            Reply::Status("200 OK", vec![("Content-Type", "text/html".into())], b"<html>Log in</html>".to_vec()),
            Refused(&["cannot unpack", "<html>Log in", "hint: ", "login page"]),
        ),
        constant_fault(
            "nothing",
            Reply::Status("200 OK", Vec::new(), Vec::new()),
            Refused(&["cannot unpack", "empty"]),
        ),
    ]
}

fn redirects() -> Vec<Fault> {
    vec![
        fault("relative redirect", vec![Reply::redirect(asset())], Installed(2)),
        fault("ten redirects", (0..10).map(|_| Reply::redirect(asset())).collect(), Installed(11)),
        constant_fault("redirects for ever", Reply::redirect(asset()), Refused(&["10 redirects", "127.0.0.1"])),
        constant_fault(
            "redirect to another scheme",
            Reply::redirect("ftp://127.0.0.1/x"),
            Refused(&["redirects to", "ftp://127.0.0.1/x"]),
        ),
        constant_fault(
            "redirect to a file",
            Reply::redirect("file:///etc/passwd"),
            Refused(&["redirects to", "file:///etc/passwd"]),
        ),
        constant_fault(
            "redirect to nonsense",
            Reply::redirect("http://[::1"),
            Refused(&["redirects to", "http://[::1"]),
        ),
        constant_fault(
            "redirect without a place",
            Reply::Status("302 Found", Vec::new(), Vec::new()),
            Refused(&["302"]),
        ),
    ]
}

#[test]
fn every_fault_of_a_server_is_survived_or_explained() {
    let groups = [statuses(), connections(), lengths(), ranges(), contents(), redirects()];
    in_parallel(12, groups.into_iter().flatten(), |fault| {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, small_release());
        server.script(&asset(), fault.replies);
        if let Some(reply) = fault.always {
            server.always(&asset(), reply);
        }
        let outcome = install(&home, &server.base()).run();
        let shown = || format!("{}\n{}\n{:#?}", fault.what, outcome.describe(), server.requests());
        match fault.wanted {
            Installed(requests) => {
                assert!(outcome.code() == 0, "{}", shown());
                assert_installed(&home, stand_in_bytes());
                assert!(server.requests_for(&asset()).len() == requests, "expected {requests} requests: {}", shown());
            }
            Refused(words) => {
                assert!(outcome.code() == 1, "{}", shown());
                let error = outcome.error().replace(&server.address().to_string(), "HOST");
                eprintln!("{:36} {error}", fault.what);
                let missing: Vec<_> = words.iter().filter(|word| !outcome.stderr.contains(**word)).collect();
                assert!(missing.is_empty(), "without {missing:?}: {}", shown());
                outcome.fails_with(&[VERSION]);
                // What came may be kept for the next start, and nothing else.
                let names = home.bin_names();
                assert!(names.iter().all(|name| name == ".temporal.download"), "{}", shown());
                assert_eq!(!names.is_empty(), outcome.stderr.contains("the next start goes on from there"));
            }
        }
        home.assert_quiet();
    });
}

#[test]
fn retry_after_is_waited_for() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    server.script(&asset(), [Reply::retry_after("429 Too Many Requests", "2")]);
    let began = Instant::now();
    install(&home, &server.base()).run().success();
    // A lower bound, which a slow machine cannot break.
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[test]
fn a_server_without_ranges_sends_it_all_again_and_what_is_there_is_skipped() {
    let archive = release(&executable(200 << 10, 12));
    let file = || File::new(&archive[..]).without_ranges();
    let variants =
        [file(), file().without_etag(), file().last_modified("Mon, 23 Nov 2026 03:50:00 GMT").without_etag()];
    for file in variants {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, &archive);
        server.put(&asset(), file);
        server.script(&asset(), [50_000, 100_000, 10_000, 250_000].map(|bytes| Reply::Cut(bytes, Cut::Close)));
        install(&home, &server.base()).run().success();
        assert_installed(&home, &executable(200 << 10, 12));
    }
}

#[test]
fn a_file_without_a_validator_is_resumed_and_one_without_a_length_is_never_taken_for_whole() {
    let archive = release(&executable(200 << 10, 12));
    let total = archive.len() as u64;
    let time = "Mon, 23 Nov 2026 03:50:00 GMT";
    for (file, validator) in [
        (File::new(&archive[..]).without_etag(), None),
        (File::new(&archive[..]).without_etag().last_modified(time), Some(time)),
    ] {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, &archive);
        server.put(&asset(), file);
        server.script(&asset(), [Reply::Cut(total / 2, Cut::Close)]);
        install(&home, &server.base()).run().success();
        let requests = server.requests_for(&asset());
        assert_nothing_fetched_twice(&requests, total);
        assert_eq!(requests[1].header("if-range"), validator);
    }
    // Without a length the end of the connection is the end of the file.
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, &archive);
    server.put(&asset(), File::new(&archive[..]).without_length());
    server.script(&asset(), [Reply::Cut(total / 2, Cut::Close)]);
    install(&home, &server.base()).run().fails_with(&["cannot unpack", "the archive is truncated", "hint: "]);
    assert!(home.bin_names().is_empty());
    install(&home, &server.base()).run().success();
    assert_installed(&home, &executable(200 << 10, 12));
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_anew() {
    let (old, new) = (release(&executable(200 << 10, 13)), release(&executable(200 << 10, 14)));
    let plain = |bytes: &[u8]| File::new(bytes);
    let timed = |bytes: &[u8], time: &str| File::new(bytes).without_etag().last_modified(time);
    for (before, after) in [
        (plain(&old), plain(&new)),
        (plain(&old).without_ranges(), plain(&new).without_ranges()),
        (timed(&old, "Mon, 23 Nov 2026 03:50:00 GMT"), timed(&new, "Mon, 23 Nov 2026 03:50:01 GMT")),
        // Only the length distinguishes these two.
        (plain(&old).without_etag(), plain(&release(&executable(100 << 10, 14))).without_etag()),
    ] {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, &old);
        server.put(&asset(), before);
        server.put(&checksums_path(VERSION), File::new(checksums(VERSION, &after.bytes)));
        server.script(&asset(), [Reply::Cut(40_000, Cut::Close), Reply::Replace(after.clone())]);
        let outcome = install(&home, &server.base()).run();
        outcome.success();
        let requests = server.requests_for(&asset());
        assert_eq!(requests.len(), 3, "{}\n{requests:#?}", outcome.describe());
        assert_eq!((requests[1].range_start(), requests[2].range_start()), (Some(40_000), None));
    }
}

#[test]
fn a_file_that_keeps_changing_is_given_up_on() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let replies = (0..20).flat_map(|seed| {
        [Reply::Cut(10_000, Cut::Close), Reply::Replace(File::new(release(&executable(1000, 100 + seed))))]
    });
    server.script(&asset(), replies.collect::<Vec<_>>());
    install(&home, &server.base()).run().fails_with(&[&asset(), "changes"]);
    assert!(home.bin_names().is_empty());
}

#[test]
fn checksums_are_fetched_as_stubbornly_as_the_archive() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let path = checksums_path(VERSION);
    server.script(
        &path,
        [
            Reply::Nothing,
            Reply::Cut(70, Cut::Close),
            Reply::status("503 Service Unavailable"),
            Reply::redirect(path.clone()),
        ],
    );
    install(&home, &server.base()).run().success();
    assert_eq!(server.requests_for(&path).len(), 5);
}

#[test]
fn the_error_names_the_host_that_failed_even_after_a_redirect() {
    let dead = DeadPort::new();
    let missing = ReleaseServer::start();
    let to_missing = format!("http://localhost:{}/elsewhere", missing.address().port());
    let to_dead = format!("http://localhost:{}/elsewhere", dead.1);
    let cases = vec![
        (Reply::redirect(to_dead), vec!["localhost", "connection refused"]),
        (Reply::redirect(to_missing), vec![VERSION, "hint: "]),
    ];
    in_parallel(2, cases, |(reply, words)| {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, small_release());
        server.always(&asset(), reply);
        install(&home, &server.base()).run().fails_with(&words);
    });
    assert_eq!(missing.requests().len(), 1);
}

#[test]
fn a_missing_mirror_is_reported_with_the_cause() {
    let home = Home::new();
    let dead = DeadPort::new();
    let base = format!("http://127.0.0.1:{}", dead.1);
    install(&home, &base).run().fails_with(&[&base, "connection refused", "6 attempts", "hint: ", "--mirror"]);
    assert!(home.bin_names().is_empty());
    home.assert_quiet();
}

#[test]
fn a_download_by_way_of_a_redirect_is_resumed() {
    // As the public releases are served: every resume asks the front again.
    let home = Home::new();
    let content = executable(500 << 10, 15);
    let archive = release(&content);
    let storage = ReleaseServer::start();
    storage.put("/storage/blob", File::new(&archive[..]));
    storage.script("/storage/blob", [Reply::Cut(200_000, Cut::Reset), Reply::Cut(100_000, Cut::Close)]);
    let front = ReleaseServer::with_release(VERSION, &archive);
    front.always(&asset(), Reply::redirect(storage.url("/storage/blob?signature=a%2Fb&x=y")));
    storage.always("/storage/blob?signature=a%2Fb&x=y", Reply::redirect("/storage/blob"));
    install(&home, &front.base()).run().success();
    assert_installed(&home, &content);
    assert_nothing_fetched_twice(&storage.requests_for("/storage/blob"), archive.len() as u64);
    assert_eq!(home.receipt_field("source").unwrap(), front.url(&asset()));
}

#[test]
fn a_password_in_the_mirrors_url_goes_to_the_mirror_alone_and_into_no_file() {
    let home = Home::new();
    let storage = ReleaseServer::start();
    storage.put("/blob", File::new(small_release()));
    let front = ReleaseServer::with_release(VERSION, small_release());
    front.always(&asset(), Reply::redirect(storage.url("/blob")));
    let base = format!("http://ada:secret@{}", front.address());
    let outcome = install(&home, &base).run();
    outcome.success().stderr_lacks("secret");
    let authorization = format!("Basic {}", base64(b"ada:secret"));
    for request in front.requests() {
        assert_eq!(request.header("authorization"), Some(authorization.as_str()), "{request:?}");
    }
    assert_eq!(storage.requests()[0].header("authorization"), None);
    assert!(!home.receipt_field("source").unwrap().contains("secret"));
    front.always(&asset(), Reply::status("404 Not Found"));
    let other = Home::new();
    install(&other, &base).run().fails_with(&["127.0.0.1"]).stderr_lacks("secret");
}

// TLS

/// A server with TLS, its authority's file, and the home they are for.
fn tls_server(home: &Home, names: &[&str]) -> (ReleaseServer, String) {
    let authority = Authority::new();
    let path = home.root().join("ca.pem");
    authority.write_pem(&path);
    let server = ReleaseServer::start_tls(authority.server(names));
    server.publish(VERSION, small_release());
    (server, path.to_str().unwrap().to_owned())
}

#[test]
fn a_companys_certificate_authority_is_trusted_when_it_is_named() {
    let home = Home::new();
    let (server, ca) = tls_server(&home, &["127.0.0.1"]);
    let outcome = install(&home, &server.base()).run();
    outcome.fails_with(&["127.0.0.1", "certificate", "hint: ", "SSL_CERT_FILE"]);
    assert_eq!(server.requests().len(), 0);
    server.script(&asset(), [Reply::Cut(100_000, Cut::Close), Reply::Cut(100_000, Cut::Reset)]);
    install(&home, &server.base()).env("SSL_CERT_FILE", &ca).run().success();
    assert_installed(&home, stand_in_bytes());
    assert_nothing_fetched_twice(&server.requests_for(&asset()), small_release().len() as u64);
}

#[test]
fn a_certificate_for_another_host_is_refused() {
    let home = Home::new();
    let (server, ca) = tls_server(&home, &["other.example"]);
    install(&home, &server.base()).env("SSL_CERT_FILE", &ca).run().fails_with(&["127.0.0.1", "certificate", "hint: "]);
    let other = Authority::new();
    other.write_pem(&home.root().join("other.pem"));
    let outcome = install(&home, &server.base()).env("SSL_CERT_FILE", home.root().join("other.pem")).run();
    outcome.fails_with(&["127.0.0.1", "certificate", "hint: "]);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_bad_certificate_file_is_reported_as_one() {
    let home = Home::new();
    let (server, _) = tls_server(&home, &["127.0.0.1"]);
    let run = |path: &std::path::Path| install(&home, &server.base()).env("SSL_CERT_FILE", path).run();
    let absent = home.root().join("absent.pem");
    run(&absent).fails_with(&[absent.to_str().unwrap(), "hint: ", "SSL_CERT_FILE"]);
    let empty = home.root().join("empty.pem");
    fs::write(&empty, "no certificate\n").unwrap();
    run(&empty).fails_with(&[empty.to_str().unwrap(), "hint: ", "SSL_CERT_FILE"]);
}

#[test]
fn https_never_leads_to_http() {
    let home = Home::new();
    let (server, ca) = tls_server(&home, &["127.0.0.1"]);
    let plain = ReleaseServer::with_release(VERSION, small_release());
    server.always(&asset(), Reply::redirect(plain.url(&asset())));
    let outcome = install(&home, &server.base()).env("SSL_CERT_FILE", &ca).run();
    outcome.fails_with(&["redirects", &plain.base(), "downgrades https to http", "hint: "]);
    assert_eq!(plain.connections(), 0);
    // From http to https is allowed.
    let front = ReleaseServer::with_release(VERSION, small_release());
    let (secure, ca) = tls_server(&home, &["127.0.0.1"]);
    front.always(&asset(), Reply::redirect(secure.url(&asset())));
    install(&home, &front.base()).env("SSL_CERT_FILE", &ca).run().success();
}

#[test]
fn a_plain_server_behind_an_https_url_is_reported() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let base = server.base().replace("http:", "https:");
    let outcome = install(&home, &base).run();
    outcome.fails_with(&[&base]).stderr_lacks("SSL_CERT_FILE");
}

// Proxies

#[test]
fn each_proxy_variable_is_honoured_and_the_proxy_resolves_the_name() {
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, small_release());
        let proxy = Proxy::to(server.address());
        install(&home, "http://releases.example").env(variable, proxy.url()).run().success();
        assert_installed(&home, stand_in_bytes());
        assert_eq!(proxy.requests().len(), 2, "{variable}");
    }
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
        let home = Home::new();
        let (server, ca) = tls_server(&home, &["releases.example"]);
        let proxy = Proxy::to(server.address());
        let stigmer = install(&home, "https://releases.example").env("SSL_CERT_FILE", &ca);
        stigmer.env(variable, proxy.url()).run().success();
        assert_installed(&home, stand_in_bytes());
        for request in proxy.requests() {
            assert_eq!((request.method.as_str(), request.target.as_str()), ("CONNECT", "releases.example:443"));
        }
    }
}

#[test]
fn a_download_through_a_proxy_is_resumed() {
    let home = Home::new();
    let (server, ca) = tls_server(&home, &["releases.example"]);
    server.script(&asset(), [Reply::Cut(50_000, Cut::Close), Reply::Cut(60_000, Cut::Close)]);
    let proxy = Proxy::to(server.address());
    let stigmer = install(&home, "https://releases.example").env("SSL_CERT_FILE", &ca);
    stigmer.env("HTTPS_PROXY", proxy.url()).run().success().stderr_has("(resumed 2 times)");
    assert_nothing_fetched_twice(&server.requests_for(&asset()), small_release().len() as u64);
}

#[test]
fn a_proxys_user_and_password_are_sent_and_never_shown() {
    for scheme in ["http", "https"] {
        let home = Home::new();
        let (secure, ca) = tls_server(&home, &["releases.example"]);
        let plain = ReleaseServer::with_release(VERSION, small_release());
        let target = if scheme == "http" { plain.address() } else { secure.address() };
        let proxy = Proxy::with_password(target, "ada", "p:w@d");
        let base = format!("{scheme}://releases.example");
        let variable = format!("{}_PROXY", scheme.to_uppercase());
        let run = |login: &str| {
            let stigmer = install(&home, &base).env("SSL_CERT_FILE", &ca);
            stigmer.env(&variable, format!("http://{login}{}", proxy.address())).run()
        };
        for login in ["", "ada:wrong@"] {
            let outcome = run(login);
            outcome.fails_with(&["407", "hint: "]).stderr_lacks("wrong");
            // It would be refused again.
            assert!(proxy.requests().len() <= 2, "{}", outcome.describe());
        }
        run("ada:p%3Aw%40d@").success().stderr_lacks("p%3Aw").stderr_lacks("p:w@d");
    }
}

#[test]
fn hosts_of_no_proxy_are_reached_directly() {
    let server = ReleaseServer::with_release(VERSION, small_release());
    let dead = DeadPort::new();
    let proxy = format!("http://127.0.0.1:{}", dead.1);
    for no_proxy in ["127.0.0.1", "*", "example.com, 127.0.0.1"] {
        let home = Home::new();
        let stigmer = install(&home, &server.base()).env("HTTP_PROXY", &proxy).env("ALL_PROXY", &proxy);
        stigmer.env("NO_PROXY", no_proxy).run().success();
    }
    // Neither a proxy for the other scheme nor an empty variable counts.
    let home = Home::new();
    install(&home, &server.base()).env("HTTPS_PROXY", &proxy).env("HTTP_PROXY", "").run().success();
}

#[test]
fn a_proxy_that_does_not_work_is_named_with_its_variable() {
    let dead = DeadPort::new();
    let url = format!("http://127.0.0.1:{}", dead.1);
    let cases = vec![
        ("HTTP_PROXY", "http://releases.example", url.clone(), "connection refused"),
        ("HTTPS_PROXY", "https://releases.example", url, "connection refused"),
        ("ALL_PROXY", "http://releases.example", "socks5://127.0.0.1:1".into(), "proxies"),
        ("HTTP_PROXY", "http://releases.example", "nonsense://x".into(), "nonsense"),
        ("HTTPS_PROXY", "https://releases.example", "http://".into(), "proxy"),
    ];
    in_parallel(5, cases, |(variable, base, proxy, word)| {
        let home = Home::new();
        install(&home, base).env(variable, proxy).run().fails_with(&[variable, word, "hint: "]);
    });
}

// Progress

#[test]
fn on_a_terminal_the_progress_is_redrawn_in_place_and_left_complete() {
    let home = Home::new();
    let archive = release(&executable(2 << 20, 16));
    let server = ReleaseServer::with_release(VERSION, &archive);
    let gate = Gate::new();
    server.script(&asset(), [Reply::Cut(archive.len() as u64 / 2, Cut::Hold(gate.clone()))]);
    let began = Instant::now();
    let mut terminal = Pty::spawn(home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()), 100, 24);
    gate.wait_until_reached();
    terminal.wait_for("MB");
    terminal.wait_for("%");
    gate.open();
    terminal.wait_for("Ready.");
    let draws = terminal.screen().matches("Downloading").count();
    assert!(draws as f64 <= began.elapsed().as_secs_f64() * 10.0 + 2.0, "{draws} times");
    terminal.ctrl_c();
    assert!(terminal.wait().success(), "{}", terminal.screen());
    let screen = terminal.screen();
    let lines = pty::rendered(&screen);
    let platform = platform().replace('_', "/");
    let line = format!("[⬇] Downloading Temporal CLI v{VERSION} ({platform})... 100%");
    assert_eq!(lines.iter().filter(|shown| **shown == line).count(), 1, "{screen}");
    assert_eq!(lines.iter().filter(|shown| shown.contains("Downloading")).count(), 1, "{screen}");
}

#[test]
fn a_terminal_shows_each_retry_and_its_cause_as_it_happens() {
    let home = Home::new();
    let dead = DeadPort::new();
    let base = format!("http://127.0.0.1:{}", dead.1);
    let mut terminal = Pty::spawn(home.stigmer(["local", "start"]).with_mirror(VERSION, &base), 80, 24);
    terminal.wait_for(&format!("[!]\x1b[0m Trying again (2 of 6): 127.0.0.1:{}: connection refused", dead.1));
    terminal.signal(libc::SIGKILL);
    terminal.wait();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let gate = Gate::new();
    let replies = [Reply::Cut(half(), Cut::Close), Reply::Nothing, Reply::Cut(100, Cut::Hold(gate.clone()))];
    server.script(&asset(), replies);
    server.script(&checksums_path(VERSION), [Reply::Nothing]);
    let stigmer = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base());
    let mut terminal = Pty::spawn(stigmer, 120, 24);
    terminal.wait_for("Trying again (2 of 6): 127.0.0.1");
    // Half of an odd number is less than half.
    let percent = half() * 100 / small_release().len() as u64;
    terminal.wait_for(&format!("{percent}%, trying again (2 of 6): 127.0.0.1"));
    terminal.wait_for(&format!("{percent}%, trying again (3 of 6): 127.0.0.1"));
    gate.open();
    terminal.wait_for("Ready.");
    terminal.ctrl_c();
    assert!(terminal.wait().success(), "{}", terminal.screen());
    // What is past does not stay on the screen.
    let screen = terminal.screen();
    let lines = pty::rendered(&screen);
    assert!(!lines.iter().any(|line| line.contains("again")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.ends_with("100% (resumed once)")), "{lines:#?}");
}

#[test]
fn the_progress_fits_a_terminal_of_any_width_and_survives_a_resize() {
    for columns in [200, 80, 40, 20, 8, 1] {
        let home = Home::new();
        let archive = release(&executable(1 << 20, 17));
        let server = ReleaseServer::with_release(VERSION, &archive);
        let gates = [Gate::new(), Gate::new()];
        let third = archive.len() as u64 / 3;
        server.script(
            &asset(),
            [Reply::Cut(third, Cut::Hold(gates[0].clone())), Reply::Cut(third, Cut::Hold(gates[1].clone()))],
        );
        let stigmer = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base());
        let mut terminal = Pty::spawn(stigmer, columns, 24);
        gates[0].wait_until_reached();
        terminal.wait_for("⬇");
        terminal.resize(120, 30);
        gates[0].open();
        terminal.wait_for("Ready.");
        let screen = terminal.screen();
        assert!(screen.contains("100%"), "{columns} columns:\n{screen}");
        // Until the resize no line was wide enough to wrap.
        let first = screen.split('\r').find(|part| part.contains('⬇')).unwrap_or_default();
        let shown = pty::rendered(first).concat();
        assert!(shown.chars().count() <= columns.max(4) as usize, "{columns} columns: '{shown}'");
        terminal.ctrl_c();
        assert!(terminal.wait().success(), "{}", terminal.screen());
    }
}

#[test]
fn a_stranger_cannot_write_escapes_to_the_terminal() {
    let home = Home::new();
    let archive = Archive::new().file("../\x1b[2J\x1b]0;owned\x07temporal", b"x").gzip();
    let server = ReleaseServer::with_release(VERSION, &archive);
    let outcome = install(&home, &server.base()).run();
    outcome.fails_with(&["cannot unpack"]).stderr_lacks("\x1b").stderr_lacks("\x07");
    server.always(&asset(), Reply::Status("200 OK", Vec::new(), b"\x1b[2J\x07 page".to_vec()));
    install(&home, &server.base()).run().fails_with(&["cannot unpack"]).stderr_lacks("\x1b").stderr_lacks("\x07");
    let location = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\x1b[2J\r\nContent-Length: 0\r\n\r\n";
    server.always(&asset(), Reply::Raw(location.to_vec()));
    install(&home, &server.base()).run().exits_with(1).stderr_lacks("\x1b");
}

#[test]
fn the_pinned_version_needs_no_checksums() {
    let home = Home::new();
    let server = ReleaseServer::start();
    server.put(&asset_path(PINNED_VERSION), File::new(small_release()));
    home.stigmer(["local", "run", "--mirror", &server.base(), "--", "true"]).run().fails_with(&["expected"]);
    let paths: Vec<_> = server.requests().into_iter().map(|request| request.path).collect();
    assert_eq!(paths, [asset_path(PINNED_VERSION)]);
}

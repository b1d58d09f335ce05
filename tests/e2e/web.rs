//! The main use: a unikernel with a TCP/IP stack serves a web page, as `cargo xtask demo` shows it.

use libtest_mimic::Trial;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::common::Need::{Kvm, Net};
use crate::common::net::Tap;
use crate::common::{self, Guest, LIMIT, trial};

/// The server as a unikernel of today and of Solo5 0.4.
const SERVERS: [&str; 2] = ["web", "web-e1"];

/// A name, and a test of a server.
type Test = (&'static str, fn(&str));

pub fn tests() -> Vec<Trial> {
    let tests: [Test; 5] = [
        ("an_address_is_asked_for", an_address_is_asked_for),
        ("the_page_is_served", the_page_is_served),
        (
            "connections_are_served_at_the_same_time",
            connections_are_served_at_the_same_time,
        ),
        (
            "requests_in_pieces_are_served",
            requests_in_pieces_are_served,
        ),
        (
            "the_log_is_that_of_a_unikernel",
            the_log_is_that_of_a_unikernel,
        ),
    ];
    let each = SERVERS
        .into_iter()
        .flat_map(|server| tests.map(|(name, body)| (server, name, body)));
    let mut tests: Vec<_> = each
        .map(|(server, name, body)| {
            trial(&format!("{server}::{name}"))
                .needs(&[Kvm, Net])
                .run(move || body(server))
        })
        .collect();
    tests.push(trial!(the_page_is_the_same, Kvm, Net));
    tests
}

/// The server on a tap, started with the documented command line.
struct Server {
    guest: Guest,
    _tap: Tap,
}

impl Server {
    fn start(server: &str) -> Server {
        let tap = Tap::up("tap100", Ipv4Addr::new(10, 0, 0, 1));
        let mut command = common::tender(["--net=tap100", "--mem=64M", "--"]);
        let guest = Guest::start(
            command
                .arg(common::fixture(server))
                .arg("--ipv4=10.0.0.2/24"),
        );
        guest.wait_for("listening on 8080/TCP");
        Server { guest, _tap: tap }
    }

    /// Ends it; returns its log.
    fn stop(mut self) -> String {
        assert!(self.guest.is_running());
        self.guest.signal(libc::SIGTERM);
        let output = self.guest.end();
        output.dies_by(libc::SIGTERM).is_quiet();
        output.stdout
    }
}

fn an_address_is_asked_for(server: &str) {
    let _tap = Tap::up("tap100", Ipv4Addr::new(10, 0, 0, 1));
    for argument in ["", "--ipv4=10.0.0.2"] {
        let mut command = common::tender(["--net=tap100", "--mem=64M", "--"]);
        let output = common::run(command.arg(common::fixture(server)).arg(argument));
        output.exits(1).is_quiet();
        assert_eq!(
            output.stdout,
            "this program needs --ipv4=ADDRESS/PREFIX, such as --ipv4=10.100.0.2/24\n"
        );
    }
}

fn connect() -> TcpStream {
    let address = SocketAddr::from(([10, 0, 0, 2], 8080));
    let deadline = Instant::now() + LIMIT;
    loop {
        match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                return stream;
            }
            Err(error) => assert!(Instant::now() < deadline, "no connection: {error}"),
        }
    }
}

fn request(stream: &mut TcpStream, method: &str, path: &str) {
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: 10.0.0.2\r\n\r\n").unwrap();
}

/// Reads the whole response: head and body.
fn answer(mut stream: TcpStream) -> (String, String) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .expect("an answer has a head and a body");
    (head.to_owned(), body.to_owned())
}

fn fetch(path: &str) -> (String, String) {
    let mut stream = connect();
    request(&mut stream, "GET", path);
    answer(stream)
}

/// Checks that it is the whole page.
fn is_page((head, body): (String, String)) -> String {
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length = head
        .split("Content-Length: ")
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .unwrap();
    assert_eq!(length.parse::<usize>().unwrap(), body.len());
    assert!(
        body.contains("<html") && body.trim_end().ends_with("</html>"),
        "{body}"
    );
    body
}

fn the_page_is_served(server: &str) {
    let server = Server::start(server);
    let first = is_page(fetch("/"));
    for _ in 0..5 {
        assert_eq!(is_page(fetch("/")), first);
    }
    let (head, _) = fetch("/no-such-page");
    assert!(head.starts_with("HTTP/1.1 404 "), "{head}");
    server.stop();
}

fn the_page_is_the_same() {
    let [today, legacy] = SERVERS.map(|server| {
        let server = Server::start(server);
        let page = is_page(fetch("/"));
        server.stop();
        page
    });
    assert_eq!(today, legacy);
}

/// Each client sends its request only after all of them are connected.
fn connections_are_served_at_the_same_time(server: &str) {
    let server = Server::start(server);
    let mut streams: Vec<_> = (0..8).map(|_| connect()).collect();
    for stream in streams.iter_mut().rev() {
        request(stream, "GET", "/");
    }
    for stream in streams {
        is_page(answer(stream));
    }
    server.stop();
}

fn requests_in_pieces_are_served(server: &str) {
    let server = Server::start(server);
    let mut stream = connect();
    stream.set_nodelay(true).unwrap();
    for piece in ["GE", "T / HT", "TP/1.1\r\nHost: x\r", "\n\r\n"] {
        stream.write_all(piece.as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }
    is_page(answer(stream));
    server.stop();
}

fn the_log_is_that_of_a_unikernel(server: &str) {
    let server = Server::start(server);
    fetch("/");
    fetch("/no-such-page");
    let log = server.stop();
    for line in [
        "INF [netif] plugged into service with mac ",
        "INF [ip] 10.0.0.2/24",
        "INF [http] listening on 8080/TCP\n",
        "INF [http] GET / 200",
        "INF [http] GET /no-such-page 404",
    ] {
        assert!(log.contains(line), "{line:?} is missing in {log}");
    }
    assert!(
        log.lines().all(|line| line.contains(" -00:00: INF [")),
        "every line has its time: {log}"
    );
}

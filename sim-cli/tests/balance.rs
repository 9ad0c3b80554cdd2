//! `sim balance` as a user runs it: files that are good and bad, requests, reloads, signals.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

/// A directory of one test's own files.
fn file(test: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("balance-{test}"));
    // What an earlier run left is in the way.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory for the test");
    directory.join("balance.toml")
}

fn check(path: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sim"))
        .args(["balance", "--check"])
        .arg(path)
        .output()
        .expect("the binary runs")
}

/// What a bad file is told.
fn complaint(test: &str, text: &str) -> String {
    let path = file(test);
    fs::write(&path, text).expect("a file for the test");
    let output = check(&path);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let told = String::from_utf8(output.stderr).expect("text");
    told.replace(&path.display().to_string(), "FILE")
}

/// `sim balance` at work. Ends with the test.
struct Proxy {
    child: Child,
    out: BufReader<ChildStdout>,
    err: BufReader<ChildStderr>,
    path: PathBuf,
}

impl Proxy {
    fn start(test: &str, text: &str) -> (Self, SocketAddr) {
        let path = file(test);
        fs::write(&path, text).expect("a file for the test");
        let mut child = Command::new(env!("CARGO_BIN_EXE_sim"))
            .arg("balance")
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let mut proxy = Self {
            out: BufReader::new(child.stdout.take().expect("piped")),
            err: BufReader::new(child.stderr.take().expect("piped")),
            child,
            path,
        };
        let address = proxy.listening();
        (proxy, address)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        if line.is_empty() {
            let mut told = String::new();
            let _ = self.err.read_to_string(&mut told);
            panic!("it ended: {told}");
        }
        line
    }

    fn complaint(&mut self) -> String {
        let mut line = String::new();
        self.err.read_line(&mut line).expect("a line");
        line
    }

    /// The address in the next line.
    fn listening(&mut self) -> SocketAddr {
        let line = self.line();
        let address = line
            .strip_prefix("listening: ")
            .and_then(|line| line.trim_end().rsplit_once(" at "));
        address
            .expect("name and address")
            .1
            .parse()
            .expect("an address")
    }

    /// Replaces the file whole, as editors do.
    fn write(&self, text: &str) {
        let new = self.path.with_extension("new");
        fs::write(&new, text).expect("a file for the test");
        fs::rename(&new, &self.path).expect("a file for the test");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([name, &self.child.id().to_string()])
            .status();
        assert!(sent.expect("kill runs").success());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection to the proxy that is kept.
struct Client(BufReader<TcpStream>);

impl Client {
    fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .expect("a timeout");
        Self(BufReader::new(stream))
    }

    /// The status, headers and body that a request is answered with.
    fn get(&mut self, target: &str) -> (u16, String, String) {
        let request = format!("GET {target} HTTP/1.1\r\nHost: www.example.com\r\n\r\n");
        self.0
            .get_mut()
            .write_all(request.as_bytes())
            .expect("sent");
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(
                self.0.read_line(&mut head).expect("a line"),
                0,
                "closed after {head:?}"
            );
        }
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().expect("a length"))
        });
        let mut body = vec![0; length.unwrap_or(0)];
        self.0.read_exact(&mut body).expect("the body");
        let status = head
            .split(' ')
            .nth(1)
            .expect("a status")
            .parse()
            .expect("a status");
        (status, head, String::from_utf8(body).expect("text"))
    }
}

/// A target that answers every request with its name.
fn target(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else { return };
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut head = String::new();
                while reader.read_line(&mut head).is_ok_and(|read| read > 0) {
                    if head.ends_with("\r\n\r\n") {
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                            name.len()
                        );
                        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                        head.clear();
                    }
                }
            });
        }
    });
    address
}

fn answering(body: &str) -> String {
    format!(
        "[[listeners]]\nname = \"web\"\n\
         default_actions = [{{ type = \"fixed-response\", status_code = 200, message_body = \"{body}\" }}]\n"
    )
}

fn forwarding(target: SocketAddr) -> String {
    format!(
        "[[listeners]]\nname = \"web\"\ndefault_actions = [{{ type = \"forward\", target_groups = [{{ name = \"g\" }}] }}]\n\
         [[target_groups]]\nname = \"g\"\ntargets = [{{ address = \"{target}\" }}]\nhealth_check = {{ enabled = false }}\n"
    )
}

#[test]
fn the_example_is_checked_and_told() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sim-balancer/examples/balance.toml");
    let output = check(&path);
    let told = String::from_utf8(output.stdout).expect("text");
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for line in [
        "listener HTTP:8080 at 127.0.0.1:8080, HTTP\n",
        "     10: 1 condition; headers; forward to stable x9, canary x1\n",
        "     20 (moved): 2 conditions; redirect\n",
        "  default: answer 404\n",
        "  127.0.0.1:9003 as canary-1\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
}

#[test]
fn a_file_that_cannot_be_used_is_told_where_and_why() {
    let syntax = complaint("syntax", "[[listeners]]\nport = 80\nprot = 1\n");
    assert!(
        syntax.starts_with("sim balance: FILE: line 3, column 1: unknown field `prot`"),
        "{syntax}"
    );
    let field = complaint("field", &answering("x").replace("200", "301"));
    assert!(
        field
            .starts_with("sim balance: FILE: listeners[0].default_actions[0].status_code: \"301\""),
        "{field}"
    );
    let missing = check(Path::new("/nonexistent/balance.toml"));
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_changed_file_is_in_force_without_a_connection_being_dropped() {
    let (mut proxy, address) = Proxy::start("change", &answering("first"));
    let mut client = Client::new(address);
    assert_eq!(client.get("/").2, "first");

    // The file is looked at by itself.
    proxy.write(&forwarding(target("from a target")));
    assert_eq!(proxy.line(), "reloaded\n");
    assert_eq!(proxy.listening(), address, "the socket stays");
    assert_eq!(client.get("/").2, "from a target", "on the same connection");

    // One that is bad changes nothing.
    proxy.write("[[listeners]]\nport = \"x\"\n");
    assert!(proxy.complaint().contains("not reloaded: "));
    assert_eq!(client.get("/").2, "from a target");
    proxy.write(&answering("x").replace("200", "301"));
    assert!(
        proxy
            .complaint()
            .contains("listeners[0].default_actions[0].status_code")
    );
    assert_eq!(Client::new(address).get("/").2, "from a target");

    // A good one helps.
    proxy.write(&answering("last"));
    assert_eq!(proxy.line(), "reloaded\n");
    proxy.listening();
    assert_eq!(client.get("/").2, "last");
}

#[test]
fn signals_reload_and_end_it() {
    let (mut proxy, address) = Proxy::start("signal", &answering("hello"));
    let (status, _, body) = Client::new(address).get("/");
    assert_eq!((status, body.as_str()), (200, "hello"));
    proxy.signal("-HUP");
    assert_eq!(proxy.line(), "reloaded\n");
    proxy.listening();
    proxy.signal("-TERM");
    assert_eq!(proxy.line(), "stopped\n");
    assert_eq!(proxy.child.wait().expect("it ended").code(), Some(0));
}

#[test]
fn an_address_that_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port();
    let path = file("taken");
    fs::write(
        &path,
        answering("x").replace("name", &format!("port = {port}\nname")),
    )
    .expect("a file for the test");
    let output = Command::new(env!("CARGO_BIN_EXE_sim"))
        .arg("balance")
        .arg(&path)
        .output();
    let output = output.expect("the binary runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("sim balance: "));
}

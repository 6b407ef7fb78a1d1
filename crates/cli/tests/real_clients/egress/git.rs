//! `git clone` over https: the token is a placeholder in Basic credentials.
//!
//! The server is git's own `http-backend`, a CGI program, behind the destination's TLS.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::Response;
use tempfile::TempDir;

use super::destination::{Answer, Destination, HOST, Seen};
use super::sandbox::{CLIENT, Key, Place, Provider, Sandbox};

const SECRET: &str = "ghp_canarytoken";
const KEY: &str = "GITHUB_TOKEN";
const WORDS: &str = "words of the repository\n";

fn git(directory: &Path) -> Command {
    let mut git = Command::new("git");
    git.env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", directory)
        .current_dir(directory);
    git
}

/// Fails with what git said, and with how to get one.
fn done(git: &mut Command) -> Output {
    let output = git.stdin(Stdio::null()).output();
    let output = output.expect("expected git, got none (apt-get install -y git)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{git:?}: {said}");
    output
}

/// A bare repository with one commit, in a directory of its own.
fn repository() -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let work = root.path().join("work");
    done(git(root.path()).args(["init", "--quiet", "--initial-branch=main", "work"]));
    fs::write(work.join("README"), WORDS).unwrap();
    done(git(&work).args(["add", "README"]));
    let author = [
        "-c",
        "user.name=farrier",
        "-c",
        "user.email=farrier@example.com",
    ];
    done(
        git(&work)
            .args(author)
            .args(["commit", "--quiet", "--message=first"]),
    );
    done(git(root.path()).args(["clone", "--quiet", "--bare", "work", "own.git"]));
    root
}

/// What git's server says to a request; 401 to whoever does not show the token.
fn served(root: &Path, seen: &Seen) -> Answer {
    let wanted = BASE64_STANDARD.encode(format!("x-access-token:{SECRET}"));
    if seen.header("authorization") != format!("Basic {wanted}") {
        let response = Response::builder()
            .status(401)
            .header("www-authenticate", "Basic realm=\"git\"");
        return Answer::Whole(response.body(Bytes::new()).unwrap());
    }
    let (path, query) = seen.target.split_once('?').unwrap_or((&seen.target, ""));
    let mut backend = git(root)
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", &seen.method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", seen.header("content-type"))
        .env("CONTENT_LENGTH", seen.body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", seen.header("content-encoding"))
        .env("GIT_PROTOCOL", seen.header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    backend.stdin.take().unwrap().write_all(&seen.body).unwrap();
    Answer::Whole(of_cgi(&backend.wait_with_output().unwrap().stdout))
}

/// A CGI program's answer (RFC 3875 §6) as a response.
fn of_cgi(said: &[u8]) -> Response<Bytes> {
    let end = said
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .expect("a head and a body");
    let head = std::str::from_utf8(&said[..end]).unwrap();
    let mut response = Response::builder();
    for line in head.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value.split(' ').next().unwrap()),
            _ => response.header(name, value),
        };
    }
    let body = Bytes::copy_from_slice(&said[end + 4..]);
    response.body(body).unwrap()
}

fn sandbox(root: PathBuf) -> Sandbox {
    let destination = Destination::start(|_| move |seen: &Seen| served(&root, seen));
    let provider = Provider {
        name: "forge",
        kind: "github",
        path: "",
        keys: vec![Key::of_environment(KEY, SECRET)],
    };
    Sandbox::set(destination, &[provider])
}

/// As people do who have a token: it stands in the URL.
fn clone(sandbox: &Sandbox, place: Place) -> Output {
    let port = sandbox.destination.port;
    let placeholder = "openshell%3Aresolve%3Aenv%3AGITHUB_TOKEN";
    let url = format!("https://x-access-token:{placeholder}@{HOST}:{port}/own.git");
    let mut git = Command::new("git");
    git.args(["clone", "--quiet", &url, "cloned"]);
    let git = sandbox
        .send(&mut git, place)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0");
    git.output().unwrap()
}

#[test]
fn real_client_git_clones_with_a_placeholder_for_its_token() {
    let root = repository();
    let sandbox = sandbox(root.path().to_owned());
    let output = clone(&sandbox, Place::Work);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let cloned = sandbox.home.path().join(CLIENT).join("cloned");
    assert_eq!(fs::read_to_string(cloned.join("README")).unwrap(), WORDS);
    let seen = sandbox.destination.seen();
    let shown = BASE64_STANDARD.encode(format!("x-access-token:{SECRET}"));
    let with_token = seen
        .iter()
        .filter(|seen| seen.header("authorization") == format!("Basic {shown}"));
    assert!(with_token.count() >= 2, "{seen:?}");
    // Git keeps the URL it was given: with the placeholder in it.
    let kept = fs::read_to_string(cloned.join(".git/config")).unwrap();
    assert!(!kept.contains("canary"), "{kept}");
    let (_home, _said) = sandbox.end();
}

#[test]
fn real_client_git_without_the_attachment_is_refused() {
    let root = repository();
    let sandbox = sandbox(root.path().to_owned());
    let output = clone(&sandbox, Place::Bare);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    let seen = sandbox.destination.seen();
    assert!(
        seen.iter()
            .all(|seen| seen.header("authorization").is_empty()),
        "a placeholder was forwarded: {seen:?}"
    );
    let decisions = sandbox.decisions();
    assert!(
        decisions
            .iter()
            .any(|line| line["code"] == "credential_unavailable"),
        "{decisions:?}"
    );
    let (_home, _said) = sandbox.end();
}

//! The subset of HTTP/1.1 that a scrape needs: one request without a body, one answer, then the
//! connection is closed. Pure.

/// Maximum length of a request, in bytes.
pub(super) const LONGEST: usize = 8192;

/// The answer to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Status 200 with the metrics.
    Metrics,
    /// Status 200 with the header only.
    Head,
    /// An error with status and reason.
    Refusal(u16, &'static str),
}

/// Answer to a request that is not complete in time.
pub(super) const TOO_LATE: Answer = Answer::Refusal(408, "Request Timeout");
/// Answer to a request that exceeds [`LONGEST`].
pub(super) const TOO_LONG: Answer = Answer::Refusal(431, "Request Header Fields Too Large");

/// Strips leading empty lines of a request (RFC 9112, section 2.2).
fn begun(request: &[u8]) -> &[u8] {
    let is_line_end = |byte: &&u8| matches!(byte, b'\r' | b'\n');
    let start = request.iter().take_while(is_line_end).count();
    &request[start..]
}

/// Returns whether the request is complete.
pub(super) fn is_complete(request: &[u8]) -> bool {
    let request = begun(request);
    request.windows(3).any(|end| end == b"\n\r\n") || request.windows(2).any(|end| end == b"\n\n")
}

/// Returns the path of a target, which may be an absolute URL, as for proxies (RFC 9112, section
/// 3.2.2).
fn path(target: &[u8]) -> &[u8] {
    let target = match target.split_at_checked(b"http://".len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"http://") => rest
            .iter()
            .position(|byte| matches!(byte, b'/' | b'?'))
            .map_or(&b"/"[..], |start| &rest[start..]),
        _ => target,
    };
    target
        .split(|byte| *byte == b'?')
        .next()
        .unwrap_or_default()
}

/// Returns the answer to a complete request.
pub(super) fn answer(request: &[u8]) -> Answer {
    const MALFORMED: Answer = Answer::Refusal(400, "Bad Request");
    let line = begun(request)
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return MALFORMED;
    };
    if !version.starts_with(b"HTTP/1.") {
        return MALFORMED;
    }
    match method {
        _ if path(target) != b"/metrics" => Answer::Refusal(404, "Not Found"),
        b"GET" => Answer::Metrics,
        b"HEAD" => Answer::Head,
        _ => Answer::Refusal(405, "Method Not Allowed"),
    }
}

impl Answer {
    /// Returns the header for a body of `length` bytes.
    pub(super) fn head(self, length: usize) -> String {
        let (status, reason, kind) = match self {
            Answer::Metrics | Answer::Head => {
                (200, "OK", "text/plain; version=0.0.4; charset=utf-8")
            }
            Answer::Refusal(status, reason) => (status, reason, "text/plain; charset=utf-8"),
        };
        let allow = match status {
            405 => "Allow: GET, HEAD\r\n",
            _ => "",
        };
        format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{allow}\
             Connection: close\r\n\r\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn requests_of_real_clients_are_answered() {
        let curl = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8.5\r\nAccept: */*\r\n\r\n";
        assert!(is_complete(curl) && !is_complete(&curl[..curl.len() - 1]));
        assert_eq!(answer(curl), Answer::Metrics);
        assert_eq!(
            answer(b"GET /metrics?x=y HTTP/1.0\r\n\r\n"),
            Answer::Metrics
        );
        assert_eq!(answer(b"HEAD /metrics HTTP/1.1\r\n\r\n"), Answer::Head);
        assert!(is_complete(b"GET /metrics HTTP/1.0\n\n"));
    }

    #[test]
    fn urls_and_empty_lines_before_a_request_are_accepted() {
        for target in [
            "http://localhost/metrics",
            "HTTP://127.0.0.1:9111/metrics?x=http://localhost/",
        ] {
            assert_eq!(
                answer(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes()),
                Answer::Metrics,
                "{target}"
            );
        }
        for target in [
            "http://localhost",
            "http://localhost?/metrics",
            "https://localhost/metrics",
            "http:/metrics",
        ] {
            let answer = answer(format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
            assert_eq!(answer, Answer::Refusal(404, "Not Found"), "{target}");
        }
        for empty in ["\r\n", "\n", "\r\n\r\n", "\n\n\r\n"] {
            let request = format!("{empty}GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(
                !is_complete(empty.as_bytes()) && is_complete(request.as_bytes()),
                "{empty:?}"
            );
            assert_eq!(answer(request.as_bytes()), Answer::Metrics, "{empty:?}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let status = |request: &str| match answer(request.as_bytes()) {
            Answer::Refusal(status, _) => status,
            other => panic!("{other:?}"),
        };
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 404);
        assert_eq!(status("GET /metrics/ HTTP/1.1\r\n\r\n"), 404);
        assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n"), 405);
        assert_eq!(status("get /metrics HTTP/1.1\r\n\r\n"), 405);
        for request in [
            "",
            "\r\n\r\n",
            "GET /metrics\r\n\r\n",
            "GET  /metrics HTTP/1.1\r\n\r\n",
            "GET /metrics HTTP/2\n\n",
        ] {
            assert_eq!(status(request), 400, "{request:?}");
        }
        assert!(
            Answer::Refusal(405, "Method Not Allowed")
                .head(0)
                .contains("\r\nAllow: GET, HEAD\r\n")
        );
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(request: Vec<u8>) {
            let _ = (is_complete(&request), answer(&request));
        }
    }
}

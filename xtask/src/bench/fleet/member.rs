//! One unikernel of a fleet, on a separate tap.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{MEMORY, PATIENCE};
use crate::base::error::{Context, Result, fail};
use crate::base::process;
use crate::demo;
use crate::machines::net;

/// One unikernel. Drop kills its tender.
pub struct Member {
    pub tender: Child,
    pub address: Ipv4Addr,
    /// Name of the abstract socket of its metrics, if they are served.
    metrics: Option<String>,
}

/// Returns the name of the tap of member `index`.
pub fn tap(index: u16) -> String {
    format!("tap{index}")
}

impl Member {
    /// Starts it on a separate tap. Options for all members belong here.
    pub fn start(tender: &Path, image: &Path, index: u16, metrics: bool) -> Result<Member> {
        let [high, low] = index.to_be_bytes();
        let tap = tap(index);
        net::make_tap(&tap, Ipv4Addr::new(10, high, low, 1))?;
        let address = Ipv4Addr::new(10, high, low, 2);
        let mut command = Command::new(tender);
        // Abstract names belong to the network namespace, which is private.
        let metrics = metrics.then(|| format!("fleet-{index}"));
        command.args([format!("--mem={MEMORY}"), format!("--net:service={tap}")]);
        command
            .args(metrics.iter().map(|name| format!("--metrics=unix:@{name}")))
            .arg("--");
        command
            .arg(image)
            .arg(format!("--ipv4={address}/24"))
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let tender = process::end_with_us(&mut command)
            .spawn()
            .context(format_args!("cannot start {}", tender.display()))?;
        Ok(Member {
            tender,
            address,
            metrics,
        })
    }

    /// Fetches its page.
    pub fn answer(&mut self) -> Result<()> {
        let page = demo::fetch(&mut self.tender, self.address, PATIENCE)?;
        if page.starts_with("HTTP/1.1 200") {
            Ok(())
        } else {
            fail(format!("{} has no page", self.address))
        }
    }

    /// Fetches its metrics, which must count at least one page; returns their size in bytes.
    pub fn scrape(&self) -> Result<usize> {
        let name = self.metrics.as_deref().unwrap_or_default();
        let mut text = String::new();
        let asked = SocketAddr::from_abstract_name(name)
            .and_then(|address| UnixStream::connect_addr(&address))
            .and_then(|mut socket| {
                socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: fleet\r\n\r\n")?;
                socket.read_to_string(&mut text)
            });
        asked.context(format_args!("cannot ask {name} for its metrics"))?;
        let sent = text.lines().find_map(|line| {
            line.strip_prefix("tender_net_sent_frames_total{")?
                .split_once("} ")
        });
        match sent {
            Some((_, frames)) if text.starts_with("HTTP/1.1 200 ") && frames != "0" => {
                Ok(text.len())
            }
            _ => fail(format!(
                "{name} answers with other than its metrics: {text}"
            )),
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        // Both fail only if it was already waited for.
        let _ = self.tender.kill();
        let _ = self.tender.wait();
    }
}

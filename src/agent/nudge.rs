//! `agent nudge`, the sidecar's `preStop` hook: the pod is being stopped → the sidecar is told to save what changed now,
//! so that its last backup has little left to do. It waits for no backup and never fails: a hook that fails only makes
//! noise while a pod goes down.

use crate::agent::arguments::{NudgeArguments, Port};
use crate::agent::http::{ANNOUNCEMENT, Announcement};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// Tells the sidecar of this pod.
pub fn run(arguments: &NudgeArguments) {
    if let Err(error) = nudge(arguments) {
        tracing::warn!("the sidecar was not reached ({error}): its last backup has all to do");
    }
}

fn nudge(arguments: &NudgeArguments) -> std::io::Result<()> {
    let announcement = std::fs::read(arguments.restore_dir.join(ANNOUNCEMENT))?;
    let announcement: Announcement = serde_json::from_slice(&announcement)?;
    let port = match arguments.port {
        Port::Fixed(port) => port,
        Port::From(_) => announcement.port,
    };
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "POST /v1/nudge HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        announcement.nudge
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if answer.starts_with("HTTP/1.1 202") {
        Ok(())
    } else {
        let status = answer.lines().next().unwrap_or("no answer").to_owned();
        Err(std::io::Error::other(status))
    }
}

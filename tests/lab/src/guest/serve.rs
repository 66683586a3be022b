// SPDX-License-Identifier: GPL-2.0-or-later
//! The loop that answers the host.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{command, kernel, setup};
use crate::protocol::{Command, LoadReport, Reply, Request};

/// Name of the load among the started commands.
const LOAD: &str = "load";

/// Sets the machine up and answers requests for as long as it runs.
pub fn serve() -> Result<()> {
    setup::mount_all()?;
    let line = setup::open_line()?;
    let mut to_host = line.try_clone().context("cannot open the line twice")?;
    setup::loopback_up()?;
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned();
    send(&mut to_host, &Reply::Ready { release })?;
    let mut started = BTreeMap::new();
    for text in BufReader::new(line).lines() {
        let text = text.context("the line to the host broke")?;
        if text.trim().is_empty() {
            continue;
        }
        let reply = serde_json::from_str(&text)
            .context("the request is not understood")
            .and_then(|request| answer(request, &mut started))
            .unwrap_or_else(|error| Reply::Failed(format!("{error:#}")));
        send(&mut to_host, &reply)?;
    }
    Ok(())
}

fn send(line: &mut impl Write, reply: &Reply) -> Result<()> {
    let mut text = serde_json::to_string(reply)?;
    text.push('\n');
    line.write_all(text.as_bytes())?;
    line.flush().context("cannot answer the host")
}

fn answer(request: Request, started: &mut BTreeMap<String, command::Running>) -> Result<Reply> {
    match request {
        Request::Run(what) => command::run(&what).map(Reply::Ran),
        Request::Start { name, command: what } => {
            started.insert(name, command::start(&what)?);
            Ok(Reply::Done)
        }
        Request::Stop { name, grace_ms } => started
            .remove(&name)
            .with_context(|| format!("nothing called {name} was started"))?
            .stop(Duration::from_millis(grace_ms))
            .map(Reply::Ran),
        Request::StartLoad { threads, pace_us } => {
            let words = ["/init", "load", &threads.to_string(), &pace_us.to_string()];
            started.insert(LOAD.to_owned(), command::start(&Command::new(words))?);
            Ok(Reply::Done)
        }
        Request::StopLoad => {
            let outcome = started
                .remove(LOAD)
                .context("the load is not running")?
                .stop(Duration::from_secs(30))?;
            let report: LoadReport = serde_json::from_str(&outcome.stdout)
                .with_context(|| format!("the load broke down: {outcome:?}"))?;
            Ok(Reply::Load(report))
        }
        Request::Read { path } => {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
            Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
        }
        Request::Search { path, text } => {
            let bytes = std::fs::read(&path).with_context(|| format!("cannot read {path}"))?;
            let whole = String::from_utf8_lossy(&bytes);
            let found: Vec<&str> = whole.lines().filter(|line| line.contains(&text)).collect();
            Ok(Reply::Text(found.join("\n")))
        }
        Request::Write { path, text } => {
            // Without truncation, which means "remove all" to some files of tracefs.
            OpenOptions::new()
                .write(true)
                .open(&path)
                .and_then(|mut file| file.write_all(text.as_bytes()))
                .with_context(|| format!("cannot write {path}"))?;
            Ok(Reply::Done)
        }
        Request::InsertModules { paths } => kernel::insert_modules(&paths).map(|()| Reply::Done),
        Request::RemoveModule { name } => kernel::remove_module(&name).map(|()| Reply::Done),
        Request::KernelLog => kernel::log().map(Reply::Text),
        Request::PowerOff => kernel::power_off().map(|()| Reply::Done),
    }
}

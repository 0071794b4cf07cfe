//! `lb reload`: have the director read its configuration again, and see what changed.

use std::io::{self, Write};

use clap::Args;

use crate::api::types::{self, Action};
use crate::client::ClientError;

use super::check::{print_findings, summary};
use super::output::{Align, Cell, Format, PLAIN, Table, WARN, counted, json};
use super::{Answer, Connection};

#[derive(Debug, Args)]
pub struct Reload {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    format: Format,
}

impl Reload {
    pub(super) async fn execute(
        self,
        out: &mut dyn Write,
        complaints: &mut dyn Write,
    ) -> anyhow::Result<Answer> {
        match self.connection.client().reload().await {
            Ok(reload) if self.format.json => json(out, &reload)?,
            Ok(reload) => print(&reload, out)?,
            Err(ClientError::Refused(failure)) if failure.error.is_refusal() => {
                if !self.format.json {
                    print_findings(&failure.findings, complaints)?;
                }
                return self.format.refuse(&failure, out, complaints);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(Answer::Yes)
    }
}

fn print(reload: &types::Reload, out: &mut dyn Write) -> io::Result<()> {
    print_findings(&reload.findings, out)?;
    let mut table = Table::headless(&[Align::Left; 3]);
    for change in &reload.changes {
        let style = match change.action {
            Action::Added | Action::Changed => PLAIN,
            Action::Removed => WARN,
        };
        let details = change.details.join(", ");
        table.row([Cell::styled(change.action.name(), style), change.what.as_str().into(), details.into()]);
    }
    table.print(out)?;
    let outcome = match reload.changes.len() {
        0 => "in force, nothing is different".to_owned(),
        changes => format!("in force, {}", counted(changes, "change")),
    };
    writeln!(out, "{}: {outcome}{}", reload.file, summary(&reload.findings))
}

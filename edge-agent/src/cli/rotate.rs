//! `rotate-keys`: a line for each thing that must hold, then one for each thing that is done.

use std::{process::ExitCode, sync::Arc};

use super::{check, print};
use crate::{act::rotate, config::Config, expect};

pub(super) async fn run(config: Config, site: &str, is_dry: bool) -> anyhow::Result<ExitCode> {
    let config = Arc::new(config);
    let expected = expect::merge(expect::held(&config).unwrap_or_default(), &config);
    let (plan, mut looked) = rotate::plan(&config, &expected, site).await?;
    looked.push(if check::is_running(&config).await {
        Ok("the agent runs here, which goes back if this process dies".to_owned())
    } else {
        Err("the agent does not run here, so nobody would go back if this process died; systemctl start charliehub-edge-agent".to_owned())
    });
    let mut is_fine = true;
    for one in &looked {
        let (word, text) = match one {
            Ok(text) => ("ok", text),
            Err(text) => ("no", text),
        };
        is_fine &= one.is_ok();
        print(&format!("{word:>4}  {text}\n"))?;
    }
    let (true, Some(plan)) = (is_fine, plan) else {
        print("nothing was changed\n")?;
        return Ok(ExitCode::FAILURE);
    };
    if is_dry {
        print(&format!(
            "dry-run: {} would get a new key in place of {}; nothing was changed\n",
            plan.interface, plan.old
        ))?;
        return Ok(ExitCode::SUCCESS);
    }
    let told = |line: &str| drop(print(&format!("      {line}\n")));
    Ok(match rotate::rotate(&config, &plan, &told).await? {
        Ok(seen) => {
            print(&format!("done  {seen}\n"))?;
            ExitCode::SUCCESS
        }
        Err(why) => {
            print(&format!("  no  {why}\n"))?;
            ExitCode::FAILURE
        }
    })
}

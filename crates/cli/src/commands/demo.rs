//! `farrier demo`: the main job on one screen.

use std::process::ExitCode;

use clap::Args;
use farrier_sim::Persona;

use super::Context;
use crate::demo::{self, CLIENT_MODEL, Stage};
use crate::failure::Failure;
use crate::runtime::{self, Signals};

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The model to play
    #[arg(long, value_name = "NAME", default_value = "kimi-k2.6")]
    persona: String,
    /// Tool rounds [default: the persona's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// Afterwards keep a persona and a gateway up for your own client, until Ctrl-C
    #[arg(long)]
    serve: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments, context: &Context<'_>) -> Result<ExitCode, Failure> {
    let persona = Persona::named(&arguments.persona)?;
    runtime::run(async {
        let demonstration = demo::perform(persona.clone(), arguments.rounds).await?;
        if arguments.json {
            context.output.json(&demonstration)?;
        } else {
            demo::show(&demonstration, context.output)?;
        }
        demonstration
            .differences
            .iter()
            .for_each(|different| context.notices.say(different));
        if arguments.serve {
            serve(persona, arguments.rounds, context).await?;
        }
        match demonstration.as_expected {
            true => Ok(ExitCode::SUCCESS),
            false => Err(Failure::user("the demonstration did not go as it must")),
        }
    })
}

/// A stage of its own, so that the reader's conversations begin on a clean one.
async fn serve(
    persona: Persona,
    rounds: Option<u32>,
    context: &Context<'_>,
) -> Result<(), Failure> {
    let mut signals = Signals::watch()?;
    let stage = Stage::build(persona, rounds).await?;
    let (gateway, persona) = (stage.gateway_url(), stage.persona_url());
    let say = |line: &str| context.notices.say(line);
    say("");
    say(&format!(
        "Your turn, with the model {CLIENT_MODEL}. Through Farrier:"
    ));
    say(&format!(
        "  export OPENAI_BASE_URL={gateway} OPENAI_API_KEY=demo"
    ));
    say(&format!(
        "  curl $OPENAI_BASE_URL/chat/completions -H 'content-type: application/json' \\\n    \
         -d '{{\"model\":\"{CLIENT_MODEL}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'"
    ));
    say("Straight to the model, to compare:");
    say(&format!(
        "  export OPENAI_BASE_URL={persona} OPENAI_API_KEY=demo"
    ));
    say("Ctrl-C ends it.");
    let ((), _upkeep) = stage.during(signals.next()).await;
    Ok(())
}

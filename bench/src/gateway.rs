//! The run that says what Farrier costs: `farrier up` beside nginx and the direct call, every scenario in turn.

mod report;
pub(crate) mod scenario;

use crate::contest::{Contest, Contestant, Scenario};
use crate::exchange::{HISTORY, LONG_HISTORY, Length, Script};
use crate::ground::{Ground, RunError, Settings, learn};
use crate::report::ScenarioReport;
use crate::target::{Log, Target, TargetError};

use report::Held;
pub(crate) use report::Report;
use scenario::{Histories, MEMORY, Place, Row};

/// The targets of all scenarios but that of memory.
struct Targets<'g> {
    ground: &'g Ground<'g>,
    farrier: Target,
    logging: Target,
    nginx: Option<Target>,
}

/// Requests held at once while memory is measured.
pub(crate) const HELD_AT_ONCE: usize = 16;

/// Measures everything; `tell` says what is being done.
pub(crate) fn run(settings: &Settings, tell: &mut dyn FnMut(&str)) -> Result<Report, RunError> {
    let ground = Ground::new(settings)?;
    let mut report = Report::new(ground.conditions, ground.sync_us()?);
    let targets = Targets::start(&ground)?;
    let histories = Histories::new(learn(&targets.farrier, LONG_HISTORY)?);
    for row in scenario::all() {
        if !settings.wants(row.id) {
            continue;
        }
        tell(&format!("{}: {}", row.id, row.what));
        targets.measure(&row, &histories, &mut report)?;
    }
    targets.stop()?;
    for length in [HISTORY, LONG_HISTORY] {
        if settings.wants(MEMORY) {
            hold(&ground, &histories, length, &mut report, tell)?;
        }
    }
    ground.upstream.stop();
    report.conclude();
    Ok(report)
}

/// What requests in flight weigh, each kind in a target that was just started.
fn hold(
    ground: &Ground<'_>,
    histories: &Histories,
    length: Length,
    report: &mut Report,
    tell: &mut dyn FnMut(&str),
) -> Result<(), RunError> {
    for entry in histories.entries(length, Script::Held) {
        let target = match entry.place {
            Place::Direct => None,
            Place::Nginx => ground.nginx("nginx")?,
            Place::Farrier | Place::FarrierLogging => {
                Some(ground.farrier("farrier", Log::Warnings)?)
            }
        };
        let Some(target) = target else { continue };
        let bytes = length.bytes();
        tell(&format!(
            "{MEMORY}: {HELD_AT_ONCE} requests of {bytes} bytes in flight, {}",
            entry.name
        ));
        let weighed = ground.weigh(entry.name, &target, &entry.request, HELD_AT_ONCE)?;
        target.stop()?;
        report.memory.push(Held::new(entry.name, bytes, weighed));
    }
    Ok(())
}

// === impl Targets ===

impl<'g> Targets<'g> {
    fn start(ground: &'g Ground<'g>) -> Result<Self, RunError> {
        Ok(Self {
            ground,
            farrier: ground.farrier("farrier", Log::Warnings)?,
            logging: ground.farrier("logging", Log::Requests)?,
            nginx: ground.nginx("nginx")?,
        })
    }

    fn measure(
        &self,
        row: &Row,
        histories: &Histories,
        report: &mut Report,
    ) -> Result<(), RunError> {
        let contest: Contest<'_> = self.ground.contest();
        let scenario = self.scenario(row, histories);
        if row.at_half {
            report.halves.push(contest.measure_half(&scenario));
            return report.halves.last().map_or(Ok(()), |half| {
                let failed = half
                    .entrants
                    .iter()
                    .map(|entrant| (&entrant.name, &entrant.failed));
                nobody_dropped_out(&half.id, failed)
            });
        }
        report.scenarios.push(contest.measure(&scenario));
        report
            .scenarios
            .last()
            .map_or(Ok(()), |measured: &ScenarioReport| {
                let failed = measured
                    .entrants
                    .iter()
                    .map(|entrant| (&entrant.name, &entrant.failed));
                nobody_dropped_out(&measured.id, failed)
            })
    }

    fn scenario(&self, row: &Row, histories: &Histories) -> Scenario {
        let entries = row.entries(histories);
        let present = entries.into_iter().filter(|entry| self.has(entry.place));
        let contestants = present.map(|entry| Contestant {
            name: entry.name.to_owned(),
            way: self
                .of(entry.place)
                .map_or_else(|| self.ground.upstream.way(), Target::way),
            pids: self
                .of(entry.place)
                .map_or_else(Vec::new, |target| target.pids().to_vec()),
            request: entry.request,
            upstream_bytes: Some(entry.upstream_bytes),
        });
        Scenario {
            id: row.id.to_owned(),
            what: row.what.to_owned(),
            load: row.load(),
            timed: row.timed,
            script: row.script,
            reference: self.nginx.is_some().then(|| scenario::NGINX.to_owned()),
            contestants: contestants.collect(),
        }
    }

    fn of(&self, place: Place) -> Option<&Target> {
        match place {
            Place::Direct => None,
            Place::Farrier => Some(&self.farrier),
            Place::FarrierLogging => Some(&self.logging),
            Place::Nginx => self.nginx.as_ref(),
        }
    }

    fn has(&self, place: Place) -> bool {
        place == Place::Direct || self.of(place).is_some()
    }

    fn stop(self) -> Result<(), TargetError> {
        self.farrier.stop()?;
        self.logging.stop()?;
        self.nginx.map_or(Ok(()), Target::stop)
    }
}

/// Here everybody is ours, and one that fails is a mistake to be seen.
fn nobody_dropped_out<'r>(
    id: &str,
    mut entrants: impl Iterator<Item = (&'r String, &'r Option<String>)>,
) -> Result<(), RunError> {
    let dropped = entrants.find_map(|(name, failed)| Some((name, failed.as_ref()?)));
    dropped.map_or(Ok(()), |(name, why)| {
        Err(RunError::Dropped {
            id: id.to_owned(),
            name: name.clone(),
            why: why.clone(),
        })
    })
}

//! Messages that are followed ([`sluice_trace`]), at the stages that an owner knows.

use sluice_store::Outcome;
use sluice_trace::{Sighting, Stage, TraceId, Tracer};

use super::job::{Ask, Job};

/// Notes which of the jobs are followed: they have just been taken from the bus.
pub(super) fn take(tracer: &Tracer, jobs: &mut [Job]) -> Vec<TraceId> {
    for job in jobs.iter_mut() {
        let Ask::Send { client_msg_id, .. } = job.ask else {
            continue;
        };
        job.trace = tracer.find(&Sighting {
            sender: &job.origin.user,
            message: client_msg_id,
            connection: job.origin.connection,
            is_fresh: false,
        });
        if let Some(message) = job.trace {
            tracer.mark(message, Stage::Take);
        }
    }
    jobs.iter().filter_map(|job| job.trace).collect()
}

/// They passed all checks.
pub(super) fn checked<'a>(tracer: &Tracer, jobs: impl Iterator<Item = &'a Job>) {
    for message in jobs.filter_map(|job| job.trace) {
        tracer.mark(message, Stage::Check);
    }
}

/// The store has said what became of it.
pub(super) fn committed(tracer: &Tracer, job: &Job, outcome: &Outcome) {
    if let (Some(message), Outcome::Stored(stored) | Outcome::Duplicate(stored)) =
        (job.trace, outcome)
    {
        tracer.mark(message, Stage::Commit);
        tracer.stored(message, &job.conversation, stored.seq);
    }
}

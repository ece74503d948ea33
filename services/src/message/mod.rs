//! The message service: one owner a partition (`owner`), which works off
//! batches (`desk`) of jobs (`job`): checks (`checks`, `recall`,
//! `group_command`), one commit, then acks and pushes (`fan_out`).

mod checks;
mod desk;
mod fan_out;
mod group;
mod group_command;
mod job;
mod owner;
mod recall;

pub(crate) use owner::own;

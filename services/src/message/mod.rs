//! The message service: one owner a partition (`owner`), in fair shares among
//! the nodes (`share`), which works off
//! batches (`desk`) of jobs (`job`): checks (`checks`, `recall`,
//! `group_command`), one commit, then acks and pushes (`fan_out`).

mod checks;
mod desk;
mod fan_out;
mod followed;
mod group;
mod group_command;
mod job;
mod owner;
mod recall;
mod share;

pub(crate) use share::own_share;

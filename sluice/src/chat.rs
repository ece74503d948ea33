//! `sluice chat`, and what `send` and `recv` share with it.
//!
//! `account` logs in and `talk` is the conversation: it waits for events of the
//! client and lines of the user. `input` and `editor` read what is typed, `book`
//! knows the conversations, `act` does the commands, `render` and `screen` show.

mod account;
mod act;
mod book;
mod editor;
mod input;
mod marks;
mod palette;
mod password;
mod print;
pub(crate) mod printable;
mod render;
mod screen;
mod state_dir;
mod status;
mod talk;
mod token_file;
mod tokens;
mod trouble;

pub use account::AccountArgs;
pub(crate) use account::{Account, StateDefault, transport};
pub(crate) use palette::Palette;
pub(crate) use render::{Page, Render, type_name};
pub(crate) use screen::Screen;
pub(crate) use talk::{Talk, close, now_ms};
pub(crate) use trouble::{disconnected, kicked, told};

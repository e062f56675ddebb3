//! The program as its users see it: the only integration-test binary.

mod architecture;
mod bad_input;
mod compare;
mod configs;
mod disk_full;
mod help;
mod kill;
mod long_work;
mod memory;
mod pipeline;
mod quickstart;
mod signals;
mod support;

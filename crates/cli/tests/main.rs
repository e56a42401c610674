//! The tests of the command line: its languages, the shape of the workspace, and real `psdb` processes.

mod administer;
mod architecture;
mod end_to_end;
mod literal_properties;
mod refusals;
mod scripts;

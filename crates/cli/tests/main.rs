//! The tests of the command line: its languages, the shape of the workspace, and real `psdb` processes.

mod architecture;
mod literal_properties;
mod scripts;

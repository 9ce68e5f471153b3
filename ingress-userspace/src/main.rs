//! A table of contents: parse the arguments, start the parts, wait.

fn main() {}

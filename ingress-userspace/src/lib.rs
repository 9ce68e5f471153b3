//! The daemon's rooms, in the order in which a change flows through them.

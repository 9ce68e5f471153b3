//! The L4 front: loads the XDP program, fills its maps, knows which nodes are alive and answers for the VIPs.

mod address;
mod announce;
pub mod membership;
mod neighbour;
mod netlink;
mod owner;

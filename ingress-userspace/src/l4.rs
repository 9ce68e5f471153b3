//! The L4 front: loads the XDP program, fills its maps, knows which nodes are alive and answers for the VIPs.

pub mod membership;

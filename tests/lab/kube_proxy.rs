//! Rules as kube-proxy writes them (Kubernetes 1.31 and later), in either of its modes, for one Service with a cluster address and
//! a node port: chains, hooks, priorities and marks are its own. A lab has no kube-proxy; a scenario that wants to know how we
//! live beside it loads these.

use std::{
    fmt::Write as _,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use super::{Host, Lab};

/// The Service's cluster address; its port is 80.
pub const CLUSTER_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);
/// Its port on every node.
pub const NODE_PORT: u16 = 30_080;

impl Lab {
    /// Loads the rules of kube-proxy's mode `iptables` on `host`, for the pods of `service`.
    pub fn kube_proxy_iptables(&self, host: &Host, service: &str) -> Result<()> {
        let pods = self.ipv4_of(service);
        let mut nat = String::new();
        let mut chains = String::new();
        for (index, pod) in pods.iter().enumerate() {
            let left = pods.len() - index;
            let random = if left == 1 {
                String::new()
            } else {
                format!(" -m statistic --mode random --probability {:.5}", 1.0 / left as f64)
            };
            writeln!(chains, ":KUBE-SEP-{index} - [0:0]")?;
            write!(
                nat,
                "-A KUBE-SVC-A{random} -j KUBE-SEP-{index}\n-A KUBE-SEP-{index} -s {pod}/32 -j KUBE-MARK-MASQ\n\
                 -A KUBE-SEP-{index} -p tcp -m tcp -j DNAT --to-destination {pod}:80\n"
            )?;
        }
        feed(
            host.command("iptables-restore"),
            &format!(
                "*filter\n:KUBE-FIREWALL - [0:0]\n:KUBE-FORWARD - [0:0]\n:KUBE-PROXY-FIREWALL - [0:0]\n\
                 -A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n-A INPUT -j KUBE-FIREWALL\n\
                 -A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL\n-A FORWARD -j KUBE-FORWARD\n\
                 -A OUTPUT -j KUBE-FIREWALL\n\
                 -A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP\n\
                 -A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP\n\
                 -A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT\n\
                 -A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\nCOMMIT\n\
                 *nat\n:KUBE-SERVICES - [0:0]\n:KUBE-NODEPORTS - [0:0]\n:KUBE-POSTROUTING - [0:0]\n\
                 :KUBE-MARK-MASQ - [0:0]\n:KUBE-SVC-A - [0:0]\n:KUBE-EXT-A - [0:0]\n{chains}\
                 -A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n-A POSTROUTING -j KUBE-POSTROUTING\n\
                 -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
                 -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
                 -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
                 -A KUBE-POSTROUTING -j MASQUERADE --random-fully\n\
                 -A KUBE-SERVICES -d {CLUSTER_ADDRESS}/32 -p tcp -m tcp --dport 80 -j KUBE-SVC-A\n\
                 -A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n\
                 -A KUBE-NODEPORTS -p tcp -m tcp --dport {NODE_PORT} -j KUBE-EXT-A\n\
                 -A KUBE-EXT-A -j KUBE-MARK-MASQ\n-A KUBE-EXT-A -j KUBE-SVC-A\n\
                 -A KUBE-SVC-A ! -s 10.244.0.0/16 -d {CLUSTER_ADDRESS}/32 -p tcp -m tcp --dport 80 -j KUBE-MARK-MASQ\n\
                 {nat}COMMIT\n"
            ),
        )
    }

    /// The same of its mode `nftables`.
    pub fn kube_proxy_nftables(&self, host: &Host, service: &str) -> Result<()> {
        let pods = self.ipv4_of(service);
        let (mut endpoints, mut choice) = (String::new(), Vec::new());
        for (index, pod) in pods.iter().enumerate() {
            writeln!(
                endpoints,
                "chain endpoint-{index} {{ ip saddr {pod} jump mark-for-masquerade; meta l4proto tcp dnat to {pod}:80; }}"
            )?;
            choice.push(format!("{index} : goto endpoint-{index}"));
        }
        feed(
            host.command("nft").arg("-f").arg("-"),
            &format!(
                "table ip kube-proxy {{
                 chain mark-for-masquerade {{ mark set mark or 0x4000; }}
                 chain masquerading {{ mark and 0x4000 == 0 return; mark set mark xor 0x4000; masquerade fully-random; }}
                 {endpoints}
                 chain service-a {{
                   ip daddr {CLUSTER_ADDRESS} tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade;
                   numgen random mod {} vmap {{ {} }}
                 }}
                 chain external-a {{ jump mark-for-masquerade; goto service-a; }}
                 map service-ips {{
                   type ipv4_addr . inet_proto . inet_service : verdict;
                   elements = {{ {CLUSTER_ADDRESS} . tcp . 80 : goto service-a }}
                 }}
                 map service-nodeports {{
                   type inet_proto . inet_service : verdict; elements = {{ tcp . {NODE_PORT} : goto external-a }}
                 }}
                 chain services {{
                   ip daddr . meta l4proto . th dport vmap @service-ips;
                   fib daddr type local ip daddr != 127.0.0.0/8 meta l4proto . th dport vmap @service-nodeports;
                 }}
                 chain cluster-ips-check {{ ip daddr 10.96.0.0/16 drop; }}
                 chain filter-forward {{ type filter hook forward priority -110; policy accept;
                   ct state new jump cluster-ips-check; }}
                 chain filter-output {{ type filter hook output priority -90; policy accept;
                   ct state new jump cluster-ips-check; }}
                 chain nat-prerouting {{ type nat hook prerouting priority -100; policy accept; jump services; }}
                 chain nat-output {{ type nat hook output priority -100; policy accept; jump services; }}
                 chain nat-postrouting {{ type nat hook postrouting priority 100; policy accept; jump masquerading; }}
                 }}\n",
                pods.len(),
                choice.join(", ")
            ),
        )
    }

    fn ipv4_of(&self, service: &str) -> Vec<Ipv4Addr> {
        let addresses = self.pods_of(service).flat_map(|pod| pod.addresses().iter().copied());
        addresses
            .filter_map(|address| match address {
                IpAddr::V4(v4) => Some(v4),
                IpAddr::V6(_) => None,
            })
            .collect()
    }
}

/// Runs `command` with `rules` as its input.
fn feed(mut command: impl std::borrow::BorrowMut<Command>, rules: &str) -> Result<()> {
    let command = command.borrow_mut();
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("no input")?.write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?}: {}\n{rules}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

//! What runs in the containers of the real cluster: the lab's backend where `XDP_INGRESS_LAB_ECHO` asks for one, else
//! nothing at all, which is what holds a pod's namespaces open.

fn main() {
    ingress_tests::lab::run_if_asked();
    loop {
        std::thread::park();
    }
}

//! What the network stack has to be told so that modules find next hops in its routing table.
//!
//! `bpf_fib_lookup` asks with the interface that the packet came in by, and what it cannot answer goes to the stack, which
//! asks the neighbour and forwards that one packet itself.

use std::fs;
use std::path::Path;

use xdpchain_compose::object::Object;

/// `BPF_FUNC_fib_lookup`.
const FIB_LOOKUP: i32 = 69;
/// A call of a helper: opcode, and the source register that says so.
const CALL: (u8, u8) = (0x85, 0);

/// Whether the program of a module asks for routes.
pub(crate) fn looks_up_routes(object: &Object, program: Option<&str>) -> bool {
    let Ok(program) = object.xdp_program(program) else { return false };
    let functions = object.reachable(program.function).into_iter();
    functions
        .flat_map(|f| &object.functions[f].insns)
        .any(|i| (i.code, i.regs >> 4) == CALL && i.imm == FIB_LOOKUP)
}

/// What is set on `ifname` so that routes will not be found, or unknown neighbours not be asked for: what is wrong, and
/// the command that mends it.
pub(crate) fn advice(ifname: &str) -> Vec<(String, String)> {
    advice_in(Path::new("/proc/sys/net/ipv4"), ifname)
}

fn advice_in(folder: &Path, ifname: &str) -> Vec<(String, String)> {
    let set = |name: &str| fs::read_to_string(folder.join(name)).is_ok_and(|text| text.trim() != "0");
    let mut found = Vec::new();
    if !set(&format!("conf/{ifname}/forwarding")) {
        found.push((
            format!("`{ifname}` does not forward, so that modules find no routes for what comes in by it"),
            "sysctl -w net.ipv4.ip_forward=1".to_owned(),
        ));
    }
    if !set(&format!("conf/{ifname}/accept_local")) && !set("conf/all/accept_local") {
        found.push((
            format!(
                "`{ifname}` does not take packets that come from an address of our own, as one does that a module has put \
                 into a tunnel: when the next hop's hardware address is not known yet, the stack drops it instead of asking"
            ),
            format!("sysctl -w net.ipv4.conf.{}.accept_local=1", ifname.replace('.', "/")),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_not_set_is_told() {
        let folder = std::env::temp_dir().join(format!("xdpchain-forwarding-{}", std::process::id()));
        let write = |name: &str, value: &str| {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().expect("a folder")).expect("can be made");
            fs::write(path, value).expect("can be written");
        };
        write("conf/eth1.5/forwarding", "0\n");
        write("conf/eth1.5/accept_local", "0\n");
        write("conf/all/accept_local", "0\n");
        let commands = |ifname: &str| advice_in(&folder, ifname).into_iter().map(|a| a.1).collect::<Vec<_>>();
        assert_eq!(
            commands("eth1.5"),
            ["sysctl -w net.ipv4.ip_forward=1", "sysctl -w net.ipv4.conf.eth1/5.accept_local=1"]
        );
        write("conf/eth1.5/forwarding", "1\n");
        write("conf/all/accept_local", "1\n");
        assert_eq!(commands("eth1.5"), Vec::<String>::new());
        fs::remove_dir_all(&folder).expect("it was made");
    }

    #[test]
    fn the_modules_that_send_packets_on_ask_for_routes() {
        for (name, asks) in [("gre-steer", true), ("gtp-encap", true), ("acl", false), ("stats", false)] {
            let object =
                Object::parse(crate::builtin::find(name).expect("it is built in")).expect("an object");
            assert_eq!(looks_up_routes(&object, None), asks, "{name}");
        }
    }
}

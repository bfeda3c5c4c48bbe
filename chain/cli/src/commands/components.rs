//! The programs that libxdp's dispatcher calls on an interface, ours and others', as `status` shows them.

use serde::Serialize;
use xdpchain_host::ComponentStatus;
use xdpchain_spec::VerdictSet;

use crate::output::Page;

/// A program of the dispatcher, in the order in which they run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Component {
    /// Run priority: lower runs first.
    priority: u32,
    /// The slot; none when the program is somebody else's.
    slot: Option<String>,
    program: String,
    id: u32,
    tag: String,
    /// The verdicts after which the next program runs; libxdp's chain call actions.
    chain_call_actions: VerdictSet,
}

impl Component {
    pub(super) fn of(status: &ComponentStatus) -> Self {
        Self {
            priority: status.priority,
            slot: status.slot.clone(),
            program: status.name.clone(),
            id: status.id,
            tag: status.tag.clone(),
            chain_call_actions: status.calls,
        }
    }
}

pub(super) fn show(page: &mut Page, components: &[Component]) {
    page.table(
        &[">PRIORITY", "SLOT", "PROGRAM", ">ID", "TAG", "CHAIN CALL ACTIONS"],
        components.iter().map(|component| {
            vec![
                component.priority.to_string(),
                component.slot.clone().unwrap_or_else(|| "(not ours)".to_owned()),
                component.program.clone(),
                component.id.to_string(),
                component.tag.clone(),
                component.chain_call_actions.to_string(),
            ]
        }),
    );
}

// One slot as a module of its own. SLOT is its number.
#include "slot.h"

COUNTER(count);

SEC("xdp")
int module(struct xdp_md *ctx)
{
	return slot(ctx, &count, 0x9000 + SLOT);
}

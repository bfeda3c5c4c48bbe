// SLOTS slots written by hand as one function.
#include "slot.h"
#include "repeat.h"

#define DECLARE(i) COUNTER(count##i);
REPEAT(DECLARE)

SEC("xdp")
int monolith(struct xdp_md *ctx)
{
	int verdict = XDP_PASS;

#define RUN(i)                                            \
	verdict = slot(ctx, &count##i, 0x9000 + i);       \
	if (verdict != XDP_PASS)                          \
		return verdict;
	REPEAT(RUN)
	return verdict;
}

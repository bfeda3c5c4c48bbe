// SLOTS slots as functions that one program calls: the least that a dispatcher costs. As a dispatcher's, the functions
// are global, so that the compiler cannot look into them, and each verdict is held against a mask.
#include "slot.h"
#include "repeat.h"

#define DECLARE(i)                                              \
	COUNTER(count##i);                                      \
	__attribute__((noinline)) int call##i(struct xdp_md *ctx) \
	{                                                       \
		return slot(ctx, &count##i, 0x9000 + i);        \
	}
REPEAT(DECLARE)

const volatile __u32 proceed_on[20] = { [0 ... 19] = 1 << XDP_PASS };

SEC("xdp")
int calls(struct xdp_md *ctx)
{
	int verdict = XDP_PASS;

#define RUN(i)                                   \
	verdict = call##i(ctx);                  \
	if (!((1U << verdict) & proceed_on[i]))  \
		return verdict;
	REPEAT(RUN)
	return verdict;
}

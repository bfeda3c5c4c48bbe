// REPEAT(M) is M(0) M(1) … M(SLOTS - 1), for SLOTS 1, 2, 5, 10 and 20.
#pragma once

#define REPEAT_1(M) M(0)
#define REPEAT_2(M) REPEAT_1(M) M(1)
#define REPEAT_5(M) REPEAT_2(M) M(2) M(3) M(4)
#define REPEAT_10(M) REPEAT_5(M) M(5) M(6) M(7) M(8) M(9)
#define REPEAT_20(M) \
	REPEAT_10(M) M(10) M(11) M(12) M(13) M(14) M(15) M(16) M(17) M(18) M(19)
#define REPEAT_OF_(n) REPEAT_##n
#define REPEAT_OF(n) REPEAT_OF_(n)
#define REPEAT(M) REPEAT_OF(SLOTS)(M)

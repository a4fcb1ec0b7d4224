/* What generated programs are made of: functions of single numbers that the compiler can put into
 * vector registers, small matrix products, and the links to BLAS and to the threads.
 *
 * The float32 functions have the errors stated beside them, in units in the last place, over all
 * arguments (tests/program/test_math.py). NaN, infinities, subnormal numbers and the sign of zero are
 * as IEEE 754 wants them. The coefficients were fitted for this file: least squares on Chebyshev
 * points, reweighted until the error was level. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define TG static inline __attribute__((always_inline))

/* Large functions of sizes that are constants where they are called. All of them, and what they call,
 * become part of a caller that has TG_FLATTEN. Were they TG, GCC would put them into each other first
 * and work on every one of these bodies, which takes half the time. Clang flattens one level alone. */
#ifdef __clang__
#define TG_LARGE TG
#define TG_FLATTEN
#else
#define TG_LARGE static inline
#define TG_FLATTEN __attribute__((flatten))
#endif

TG float tg_bits(int32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

TG int32_t tg_as_int(float x) {
    int32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

/* --- 16-bit floats: bits in memory, which become numbers of float32, and those rounded, once and
 * to even. Written out: compilers do not vectorize their own conversions. --- */

typedef uint16_t tg_half, tg_bfloat; /* 5 bits of exponent and 10 more; 8 and 7 */

TG float tg_half_is(tg_half h) {
    int32_t bits = (h & 0x7fff) << 13;
    float small = (float)(h & 0x7fff) * 5.9604644775390625e-8f; /* 2^-24 */
    bits += bits >= 0x0f800000 ? 0x70000000 : 0x38000000; /* infinity and NaN stay that */
    bits = bits < 0x38800000 ? tg_as_int(small) : bits;
    return tg_bits(bits | (int32_t)((uint32_t)(h & 0x8000) << 16));
}

TG tg_half tg_half_of(float x) {
    int32_t bits = tg_as_int(x), a = bits & 0x7fffffff;
    int32_t usual = (a - 0x38000000 + 0xfff + ((a >> 13) & 1)) >> 13;
    int32_t small = tg_as_int(tg_bits(a) + 0.5f) - 0x3f000000; /* counts 2^-24 */
    int32_t h = a < 0x38800000 ? small : usual;
    h = a >= 0x47800000 ? 0x7c00 : h;
    h = a > 0x7f800000 ? 0x7e00 : h;
    return (tg_half)(h | ((uint32_t)bits >> 16 & 0x8000));
}

TG float tg_bfloat_is(tg_bfloat h) { return tg_bits((int32_t)((uint32_t)h << 16)); }

TG tg_bfloat tg_bfloat_of(float x) {
    uint32_t bits = (uint32_t)tg_as_int(x), rounded = bits + 0x7fff + (bits >> 16 & 1);
    rounded = x != x ? bits | 0x400000 : rounded;
    return (tg_bfloat)(rounded >> 16);
}

TG float tg_power_of_2(int32_t n) { return tg_bits((n + 127) << 23); }

/* Plain ones, for both types. */
#define TG_BOTH(T, s, e)                                                                           \
    TG T tg_abs_##s(T x) { return fabs##e(x); }                                                    \
    TG T tg_sqrt_##s(T x) { return sqrt##e(x); }                                                   \
    TG T tg_floor_##s(T x) { return floor##e(x); }                                                 \
    TG T tg_ceil_##s(T x) { return ceil##e(x); }                                                   \
    TG T tg_trunc_##s(T x) { return trunc##e(x); }                                                 \
    TG T tg_rint_##s(T x) { return rint##e(x); }                                                   \
    TG T tg_max_##s(T a, T b) { return a > b || a != a ? a : b; }                                  \
    TG T tg_min_##s(T a, T b) { return a < b || a != a ? a : b; }                                  \
    TG T tg_sign_##s(T x) { return x != x ? x : (T)((x > 0) - (x < 0)); }                          \
    TG int tg_finite_##s(T x) { return x - x == 0; }                                               \
    TG T tg_sin_##s(T x) { return sin##e(x); }                                                     \
    TG T tg_cos_##s(T x) { return cos##e(x); }                                                     \
    TG T tg_tan_##s(T x) { return tan##e(x); }                                                     \
    TG T tg_asin_##s(T x) { return asin##e(x); }                                                   \
    TG T tg_acos_##s(T x) { return acos##e(x); }                                                   \
    TG T tg_atan_##s(T x) { return atan##e(x); }                                                   \
    TG T tg_atan2_##s(T x, T y) { return atan2##e(x, y); }                                         \
    TG T tg_hypot_##s(T x, T y) { return hypot##e(x, y); }                                         \
    TG T tg_sinh_##s(T x) { return sinh##e(x); }                                                   \
    TG T tg_cosh_##s(T x) { return cosh##e(x); }                                                   \
    TG T tg_asinh_##s(T x) { return asinh##e(x); }                                                 \
    TG T tg_acosh_##s(T x) { return acosh##e(x); }                                                 \
    TG T tg_atanh_##s(T x) { return atanh##e(x); }                                                 \
    TG T tg_exp2_##s(T x) { return exp2##e(x); }                                                   \
    TG T tg_log2_##s(T x) { return log2##e(x); }                                                   \
    TG T tg_log10_##s(T x) { return log10##e(x); }                                                 \
    /* The remainder has the sign of y, as Python's has; the quotient is a whole number. */        \
    TG T tg_remainder_##s(T x, T y) {                                                              \
        T m = fmod##e(x, y);                                                                       \
        if (y == 0) return m;                                                                      \
        return m == 0 ? copysign##e(0, y) : (y < 0) != (m < 0) ? m + y : m;                        \
    }                                                                                              \
    TG T tg_floor_divide_##s(T x, T y) {                                                           \
        if (y == 0) return x / y;                                                                  \
        T m = fmod##e(x, y), q = (x - m) / y;                                                      \
        if (m != 0 && (y < 0) != (m < 0)) q -= 1;                                                  \
        if (q == 0) return copysign##e(0, x / y);                                                  \
        T whole = floor##e(q);                                                                     \
        return q - whole > (T)0.5 ? whole + 1 : whole;                                             \
    }

TG_BOTH(float, f, f)
TG_BOTH(double, d, )

/* 0.51 ulp where y is a constant of -1.5, -0.5, 0.5 or 1.5, as in norms: a root in double. */
TG float tg_pow_f(float x, float y) {
    const float size = y < 0 ? -y : y;
    if (!__builtin_constant_p(y) || (size != 0.5f && size != 1.5f)) return powf(x, y);
    if (y == 0.5f) return sqrtf(x); /* NumPy's way with -0 and -infinity too */
    const double z = (double)x + 0.0; /* -0 is taken as 0 */
    double power = sqrt(z);
    power = size == 1.5f ? power * z : power;
    power = y < 0 ? 1.0 / power : power;
    return x == -INFINITY ? (y < 0 ? 0.0f : INFINITY) : (float)power;
}

TG double tg_pow_d(double x, double y) { return pow(x, y); }
TG double tg_exp_d(double x) { return exp(x); }
TG double tg_expm1_d(double x) { return expm1(x); }
TG double tg_log_d(double x) { return log(x); }
TG double tg_log1p_d(double x) { return log1p(x); }
TG double tg_tanh_d(double x) { return tanh(x); }
TG double tg_erf_d(double x) { return erf(x); }
TG double tg_sigmoid_d(double x) { return 1 / (1 + exp(-x)); }

/* exp(r) - 1 for |r| <= ln(2) / 2. */
TG float tg_expm1_near(float r) {
    float p = 0.00019920957856811583f;
    p = p * r + 0.001394838560372591f;
    p = p * r + 0.00833326019346714f;
    p = p * r + 0.04166623577475548f;
    p = p * r + 0.1666666716337204f;
    p = p * r + 0.5f;
    return p * (r * r) + r;
}

/* x = n ln 2 + r; ln 2 in two parts, of which n times the first is exact. */
TG float tg_reduce(float x, float *n) {
    *n = rintf(x * 1.44269504f);
    float r = x - *n * 0.693359375f;
    return r + *n * 2.12194440e-4f;
}

/* 1 ulp. Scaled in two steps, so that it reaches the largest numbers and underflows gradually. */
TG float tg_exp_f(float x) {
    float c = x > 89.0f ? 89.0f : x, n;
    c = c < -104.0f ? -104.0f : c;
    float p = tg_expm1_near(tg_reduce(c, &n)) + 1.0f;
    int32_t whole = (int32_t)n, half = whole >> 1;
    return p * tg_power_of_2(half) * tg_power_of_2(whole - half);
}

/* The same for x <= 0, where one clamp and one power do. */
TG float tg_exp_negative(float x) {
    float c = -104.0f > x ? -104.0f : x, n;
    float p = tg_expm1_near(tg_reduce(c, &n)) + 1.0f;
    return p * tg_power_of_2((int32_t)n + 64) * 5.42101086e-20f; /* 2^-64 */
}

/* 2 ulp: 2^n (exp(r) - 1) + (2^n - 1). */
TG float tg_expm1_f(float x) {
    float c = x > 88.0f ? 88.0f : x, n;
    c = c < -30.0f ? -30.0f : c;
    float p = tg_expm1_near(tg_reduce(c, &n)), s = tg_power_of_2((int32_t)n);
    float near = s * p + (s - 1.0f);
    near = x == 0.0f ? x : near;
    return x > 87.0f ? tg_exp_f(x) : near;
}

/* 1 ulp: x = m 2^n with m between sqrt(1/2) and sqrt(2). */
TG float tg_log_f(float x) {
    int small = x < FLT_MIN;
    float y = small ? x * 33554432.0f : x; /* 2^25 */
    int32_t bits = tg_as_int(y) - 0x3f3504f3;
    int32_t n = bits >> 23;
    float f = tg_bits((bits & 0x7fffff) + 0x3f3504f3) - 1.0f;
    float e = (float)(small ? n - 25 : n);
    float p = 0.06915368139743805f;
    p = p * f - 0.11789807677268982f;
    p = p * f + 0.11872976273298264f;
    p = p * f - 0.1238434836268425f;
    p = p * f + 0.14218658208847046f;
    p = p * f - 0.16669251024723053f;
    p = p * f + 0.20002226531505585f;
    p = p * f - 0.24999986588954926f;
    p = p * f + 0.3333331048488617f;
    float s = f * f;
    float y1 = p * (s * f) - e * 2.12194440e-4f - 0.5f * s;
    float result = y1 + f + e * 0.693359375f;
    result = x == 0.0f ? -INFINITY : result;
    result = x < 0.0f ? NAN : result;
    return x - x != 0.0f && !(x < 0.0f) ? x : result; /* infinity and NaN */
}

/* 3 ulp: what rounding 1 + x lost is put back (Hewlett-Packard's formula). */
TG float tg_log1p_f(float x) {
    float u = 1.0f + x;
    float y = tg_log_f(u) * (x / (u - 1.0f));
    y = u == 1.0f ? x : y;
    return x == INFINITY ? x : y;
}

/* 4 ulp: for negative x as exp(x) / (1 + exp(x)), which underflows gradually. */
TG float tg_sigmoid_f(float x) {
    float e = tg_exp_negative(-fabsf(x)), s = 1.0f / (1.0f + e);
    return x < 0.0f ? e * s : s;
}

/* 2 ulp: near zero a polynomial, where the exponential form would cancel. */
TG float tg_tanh_f(float x) {
    float a = fabsf(x), s = x * x;
    float p = -0.005717036779969931f;
    p = p * s + 0.020650578662753105f;
    p = p * s - 0.05374349653720856f;
    p = p * s + 0.13331490755081177f;
    p = p * s - 0.3333328366279602f;
    float near = p * (s * x) + x;
    float far = copysignf(1.0f - 2.0f / (tg_exp_f(a + a) + 1.0f), x);
    return a < 0.625f ? copysignf(near, x) : x != x ? x : far;
}

/* 1 ulp. Below 0.9 a polynomial, x + x P(x^2); beyond, 1 - 2^t, where t is one about a point at
 * which the logarithm of 1 - erf has few bits: so its distance from a whole number is rounded once.
 * From 3.95 on the power is less than half of the last bit. */
TG float tg_erf_f(float x) {
    float a = fabsf(x), s = a * a;
    float near = 7.910095882834867e-05f;
    near = near * s - 0.0008032101904973388f;
    near = near * s + 0.0051911454647779465f;
    near = near * s - 0.02685537561774254f;
    near = near * s + 0.11283622682094574f;
    near = near * s - 0.3761262893676758f;
    near = near * s + 0.12837916612625122f;
    near = near * a + a;
    float u = (a > 3.95f ? 3.95f : a) - 1.1798171997070312f;
    float q = 0.0002854932099580765f;
    q = q * u - 0.002396979834884405f;
    q = q * u + 0.01207499485462904f;
    q = q * u - 0.05043978616595268f;
    q = q * u - 1.2460434436798096f;
    q = q * u - 4.25015926361084f;
    float n = rintf(q * u - 3.3926849365234375f), r = q * u + (-3.3926849365234375f - n);
    float p = 0.0001532858150312677f;
    p = p * r + 0.001339098671451211f;
    p = p * r + 0.009618501178920269f;
    p = p * r + 0.05550359562039375f;
    p = p * r + 0.24022647738456726f;
    p = p * r + 0.6931471824645996f;
    p = p * r + 1.0f;
    float far = 1.0f - p * tg_power_of_2((int32_t)n);
    return copysignf(a < 0.9f ? near : far, x);
}

/* 1.1 ulp: the same with exp(-x^2) P(|x|) subtracted, for loops that need that exponential anyway. */
TG float tg_erf_beside_exp(float x) {
    float a = fabsf(x), s = x * x;
    float near = 7.910095882834867e-05f;
    near = near * s - 0.0008032101904973388f;
    near = near * s + 0.0051911454647779465f;
    near = near * s - 0.02685537561774254f;
    near = near * s + 0.11283622682094574f;
    near = near * s - 0.3761262893676758f;
    near = near * s + 0.12837916612625122f;
    near = near * a + a;
    float u = (a > 3.95f ? 3.95f : a) - 1.5f;
    float p = 0.0001348966034129262f;
    p = p * u - 0.0007024695514701307f;
    p = p * u + 0.001985823968425393f;
    p = p * u - 0.005136765073984861f;
    p = p * u + 0.013344304636120796f;
    p = p * u - 0.03293416649103165f;
    p = p * u + 0.07615412026643753f;
    p = p * u - 0.16362258791923523f;
    p = p * u + 0.32158538699150085f;
    float far = 1.0f - p * tg_exp_negative(-s);
    return copysignf(a < 0.9f ? near : far, x);
}

/* --- random numbers: Philox 4x32-10, as in backend/philox.py (Salmon et al., SC 2011) --- */

/* Word i of the stream that belongs to key. */
TG uint32_t tg_word(int64_t key, int64_t i) {
    uint64_t counter = (uint64_t)i >> 2;
    uint32_t c0 = (uint32_t)counter, c1 = (uint32_t)(counter >> 32), c2 = 0, c3 = 0;
    uint32_t k0 = (uint32_t)(uint64_t)key, k1 = (uint32_t)((uint64_t)key >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    uint32_t low = i & 1 ? c1 : c0, high = i & 1 ? c3 : c2;
    return i & 2 ? high : low;
}

/* --- labels --- */

TG int tg_outside(const int64_t *labels, long count, int64_t low, int64_t high) {
    int bad = 0;
    for (long i = 0; i < count; i++) bad |= (uint64_t)labels[i] - low >= (uint64_t)high - low;
    return bad;
}


/* log(exp(x) + exp(y)); of equal infinities too. */
#define TG_LOGADDEXP(T, s)                                                                         \
    TG T tg_logaddexp_##s(T x, T y) {                                                              \
        if (x == y) return x + (T)0.693147180559945309417;                                         \
        T top = x > y ? x : y, d = tg_abs_##s(x - y);                                              \
        return d != d ? d : top + tg_log1p_##s(tg_exp_##s(-d));                                    \
    }
TG_LOGADDEXP(float, f)
TG_LOGADDEXP(double, d)

/* --- large results, written past the caches: else each line would be read before --- */

#if defined(__AVX512F__)
#define TG_STREAM(to, from)                                                                        \
    __asm__ volatile("vmovntps %1, %0" : "=m"(*(tg_line *)(to)) : "v"(*(const tg_line *)(from)))
typedef float tg_line __attribute__((vector_size(64), may_alias));
#elif defined(__AVX__)
#define TG_STREAM(to, from)                                                                        \
    __asm__ volatile("vmovntps %1, %0" : "=m"(*(tg_line *)(to)) : "x"(*(const tg_line *)(from)))
typedef float tg_line __attribute__((vector_size(32), may_alias));
#endif

/* from is a multiple of 64, as is to, or nothing special is done. */
TG void tg_stream(void *to, const void *from, long bytes) {
#if defined(TG_STREAM)
    if ((uintptr_t)to % 64 == 0) {
        long whole = bytes & -64;
        for (long i = 0; i < whole; i += sizeof(tg_line))
            TG_STREAM((char *)to + i, (const char *)from + i);
        memcpy((char *)to + whole, (const char *)from + whole, bytes - whole);
        return;
    }
#endif
    memcpy(to, from, bytes);
}

TG void tg_streamed(void) {
#if defined(TG_STREAM)
    __asm__ volatile("sfence" ::: "memory");
#endif
}

/* Ask for memory that is read soon, where no processor can guess it. */
TG void tg_ask(const void *from, long bytes) {
    for (long at = 0; at < bytes; at += 64) __builtin_prefetch((const char *)from + at);
}

/* --- links, filled in by the loader --- */

typedef void (*tg_task)(void **table, long begin, long end);
typedef void (*tg_sgemm_t)(int, int, int, int64_t, int64_t, int64_t, float, const float *, int64_t,
                           const float *, int64_t, float, float *, int64_t);
typedef void (*tg_dgemm_t)(int, int, int, int64_t, int64_t, int64_t, double, const double *,
                           int64_t, const double *, int64_t, double, double *, int64_t);

/* A long program is compiled in several objects, which share these. */
#define TG_SHARED __attribute__((weak, visibility("hidden")))
TG_SHARED tg_sgemm_t tg_sgemm_;
TG_SHARED tg_dgemm_t tg_dgemm_;
TG_SHARED void (*tg_parallel_)(tg_task, void **, long, long);
TG_SHARED char *(*tg_rows_)(void);

__attribute__((weak)) void tg_link(void *sgemm, void *dgemm, void *parallel, void *rows) {
    tg_sgemm_ = (tg_sgemm_t)sgemm;
    tg_dgemm_ = (tg_dgemm_t)dgemm;
    tg_parallel_ = (void (*)(tg_task, void **, long, long))parallel;
    tg_rows_ = (char *(*)(void))rows;
}

TG void tg_parallel(tg_task task, void **table, long size, long piece) {
    if (piece < size) tg_parallel_(task, table, size, piece);
    else task(table, 0, size);
}

/* The units of a program are called from the object that has its segments. */
#ifndef TG_UNIT
#define TG_UNIT static
#endif

typedef void (*tg_unit)(void **table);

/* Runs units in this order; each takes its operands from the table, and the next what follows. */
TG void tg_units(const tg_unit *units, const uint16_t *operands, const uint16_t *order, long count,
                 void **table) {
    for (long i = 0; i < count; i++) {
        units[order[i]](table);
        table += operands[order[i]];
    }
}

/* The same for some rows of units that compute each row on its own. */
TG void tg_units_by_rows(const tg_task *units, const uint16_t *operands, const uint16_t *order,
                         long count, void **table, long begin, long end) {
    for (long i = 0; i < count; i++) {
        units[order[i]](table, begin, end);
        table += operands[order[i]];
    }
}

/* Memory of the thread's own from byte `at` on, a multiple of 64: threads may have small stacks. */
TG void *tg_rows(long at) { return __builtin_assume_aligned(tg_rows_() + at, 64); }

/* Whether many of these places, ``step`` apart, may be the same one: every 13th is counted by a
 * hash of it, as in ops/sums.py. That may say yes in vain. */
TG int tg_crowded(const int64_t *at, long count, long step) {
    if (count <= 128) return 0;
    uint16_t *counts = tg_rows(0);
    int bits = 6;
    while (bits < 16 && 1L << bits < count / 4) bits++;
    memset(counts, 0, sizeof(uint16_t) << bits);
    for (long i = 0; i < count; i += 13) {
        uint16_t *n = &counts[(uint64_t)at[i * step] * 0x9E3779B97F4A7C15u >> (64 - bits)];
        if (++*n > 128 / 13) return 1;
    }
    return 0;
}

/* C [m, n] with rows ldc apart = op(A) op(B), row-major; op transposes where flagged. */
TG void tg_sgemm_part(long m, long n, long k, int ta, long lda, int tb, long ldb, const float *A,
                      const float *B, float *C, long ldc) {
    tg_sgemm_(101, 111 + ta, 111 + tb, m, n, k, 1.0f, A, lda, B, ldb, 0.0f, C, ldc);
}

TG void tg_dgemm_part(long m, long n, long k, int ta, long lda, int tb, long ldb, const double *A,
                      const double *B, double *C, long ldc) {
    tg_dgemm_(101, 111 + ta, 111 + tb, m, n, k, 1.0, A, lda, B, ldb, 0.0, C, ldc);
}

TG void tg_sgemm(long m, long n, long k, int ta, long lda, int tb, long ldb, const float *A,
                 const float *B, float *C) {
    tg_sgemm_part(m, n, k, ta, lda, tb, ldb, A, B, C, n);
}

TG void tg_dgemm(long m, long n, long k, int ta, long lda, int tb, long ldb, const double *A,
                 const double *B, double *C) {
    tg_dgemm_part(m, n, k, ta, lda, tb, ldb, A, B, C, n);
}

/* --- small products, all sizes known when compiling --- */

#if defined(__AVX512F__)
#define TG_LANES 16
#define TG_TILE 8
#elif defined(__AVX2__)
#define TG_LANES 8
#define TG_TILE 4
#else
#define TG_LANES 4
#define TG_TILE 4
#endif

typedef float tg_vector __attribute__((vector_size(4 * TG_LANES), aligned(4), may_alias));

/* `rows` rows of C from row i on, `wide` vectors from column j on, added up in registers. */
TG void tg_block(const int rows, const int wide, long i, long j, long n, long k, int ta, long lda,
                 const float *A, const float *B, long ldb, float *C) {
    tg_vector sum[TG_TILE][2];
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < wide; v++) sum[r][v] = (tg_vector){0};
    for (long l = 0; l < k; l++) {
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++) {
            float a = ta ? A[l * lda + i + r] : A[(i + r) * lda + l];
#pragma GCC unroll 2
            for (int v = 0; v < wide; v++)
                sum[r][v] += a * *(const tg_vector *)(B + l * ldb + j + v * TG_LANES);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < wide; v++) {
            long at = j + v * TG_LANES;
            if (at + TG_LANES <= n) *(tg_vector *)(C + (i + r) * n + at) = sum[r][v];
            else
                for (long c = at; c < n; c++) C[(i + r) * n + c] = sum[r][v][c - at];
        }
}

TG void tg_strip(const int wide, long j, long m, long n, long k, int ta, long lda, const float *A,
                 const float *B, long ldb, float *C) {
    long i = 0;
    for (; i + TG_TILE <= m; i += TG_TILE)
        tg_block(TG_TILE, wide, i, j, n, k, ta, lda, A, B, ldb, C);
    for (; i + 2 <= m; i += 2) tg_block(2, wide, i, j, n, k, ta, lda, A, B, ldb, C);
    for (; i < m; i++) tg_block(1, wide, i, j, n, k, ta, lda, A, B, ldb, C);
}

/* C [m, n] = op(A) op(B), row-major. B is packed where its rows are no whole vectors. */
TG void tg_small(long m, long n, long k, int ta, long lda, int tb, long ldb, const float *A,
                 const float *B, float *C) {
    const long padded = (n + TG_LANES - 1) / TG_LANES * TG_LANES;
    const int packed = tb || padded != n;
    const int few = k * padded <= 2048; /* 8 KiB */
    float on_stack[packed && few ? k * padded : 1] __attribute__((aligned(64)));
    float *const pack = packed && !few ? tg_rows(0) : on_stack;
    const float *P = B;
    if (packed) {
        for (long l = 0; l < k; l++) {
            for (long c = 0; c < n; c++) pack[l * padded + c] = tb ? B[c * ldb + l] : B[l * ldb + c];
            for (long c = n; c < padded; c++) pack[l * padded + c] = 0.0f;
        }
        P = pack;
        ldb = padded;
    }
    long j = 0;
    for (; j + 2 * TG_LANES <= padded; j += 2 * TG_LANES)
        tg_strip(2, j, m, n, k, ta, lda, A, P, ldb, C);
    if (j < padded) tg_strip(1, j, m, n, k, ta, lda, A, P, ldb, C);
}

/* Vectors of TG_L floats: 16 with AVX-512, 8 with AVX, else 4. For headers of routines; after support.h.
 *
 * Everything is GCC's and Clang's vector extension, except what it compiles badly. */
#ifndef TG_VECTORS
#define TG_VECTORS

#if defined(__AVX512F__)
#define TG_L 16
#elif defined(__AVX__)
#define TG_L 8
#else
#define TG_L 4
#endif
#define TG_UNROLL _Pragma("GCC unroll 64")

typedef float tg_vec __attribute__((vector_size(4 * TG_L), may_alias));
typedef float tg_loose __attribute__((vector_size(4 * TG_L), aligned(4), may_alias));
typedef int32_t tg_ivec __attribute__((vector_size(4 * TG_L), may_alias));

/* At any address. */
TG tg_vec tg_load(const float *p) { return *(const tg_loose *)p; }
TG void tg_store(float *p, tg_vec x) { *(tg_loose *)p = x; }
/* The first n lanes, the others being zero. */
TG tg_vec tg_load_some(const float *p, long n) {
    float a[TG_L] = {0};
    for (long i = 0; i < n; i++) a[i] = p[i];
    return tg_load(a);
}
TG void tg_store_some(float *p, tg_vec x, long n) {
    float a[TG_L];
    tg_store(a, x);
    for (long i = 0; i < n; i++) p[i] = a[i];
}

TG tg_vec tg_splat(float x) { return x - (tg_vec){0}; } /* -0 stays -0 */
TG tg_ivec tg_isplat(int32_t x) { return x + (tg_ivec){0}; }
/* a where a comparison held, else b. */
TG tg_vec tg_pick(tg_ivec held, tg_vec a, tg_vec b) {
    return (tg_vec)((held & (tg_ivec)a) | (~held & (tg_ivec)b));
}

/* GCC would load a vector again for each product that uses it; the loads then take longer than the
 * products. */
#if defined(__AVX512F__)
#define TG_IN_REGISTER(x) __asm__("" : "+v"(x))
#elif defined(__SSE__)
#define TG_IN_REGISTER(x) __asm__("" : "+x"(x))
#elif defined(__ARM_NEON)
#define TG_IN_REGISTER(x) __asm__("" : "+w"(x))
#else
#define TG_IN_REGISTER(x) ((void)0)
#endif

/* The smaller and the larger of x and a bound; x if it is NaN. Comparing and choosing takes three
 * times as long as the instruction, whose second source is the result where one is NaN. */
#if defined(__AVX__)
#define TG_BOUND(name, instruction, sign)                                                          \
    TG tg_vec name(tg_vec x, float bound) {                                                        \
        tg_vec b = tg_splat(bound);                                                                \
        __asm__(instruction " %1, %0, %0" : "+v"(b) : "v"(x));                                     \
        return b;                                                                                  \
    }
#else
#define TG_BOUND(name, instruction, sign)                                                          \
    TG tg_vec name(tg_vec x, float bound) {                                                        \
        return tg_pick(tg_splat(bound) sign x, tg_splat(bound), x);                                \
    }
#endif
TG_BOUND(tg_at_most, "vminps", <)
TG_BOUND(tg_at_least, "vmaxps", >)

/* The larger ones; either where one is NaN. */
TG tg_vec tg_larger(tg_vec a, tg_vec b) {
#if defined(__AVX__)
    __asm__("vmaxps %1, %0, %0" : "+v"(a) : "v"(b));
    return a;
#else
    return tg_pick(a > b, a, b);
#endif
}

/* The sum of all lanes, in halves. */
TG float tg_total(tg_vec x) {
    float a[TG_L];
    tg_store(a, x);
    for (int w = TG_L / 2; w; w /= 2)
        for (int i = 0; i < w; i++) a[i] += a[i + w];
    return a[0];
}
TG float tg_largest(tg_vec x) {
    float a[TG_L];
    tg_store(a, x);
    for (int w = TG_L / 2; w; w /= 2)
        for (int i = 0; i < w; i++) a[i] = tg_max_f(a[i], a[i + w]);
    return a[0];
}

/* exp(r) - 1, where x = n ln 2 + r, and n: read from the bits of a sum with 1.5 * 2^23. */
TG tg_vec tg_vexpm1_part(tg_vec x, tg_ivec *n) {
    const tg_vec magic = tg_splat(12582912.0f);
    tg_vec t = x * 1.44269504f + magic, whole = t - magic;
    tg_vec r = x - whole * 0.693359375f;
    r = r + whole * 2.12194440e-4f;
    tg_vec p = tg_splat(0.00019920957856811583f);
    p = p * r + 0.001394838560372591f;
    p = p * r + 0.00833326019346714f;
    p = p * r + 0.04166623577475548f;
    p = p * r + 0.1666666716337204f;
    p = p * r + 0.5f;
    *n = (tg_ivec)t - (tg_ivec)magic;
    return p * (r * r) + r;
}
TG tg_vec tg_vpower_of_2(tg_ivec n) { return (tg_vec)((n + 127) << 23); }

/* 1 ulp; as tg_exp_f. */
TG tg_vec tg_vexp(tg_vec x) {
    tg_ivec n;
    tg_vec p = tg_vexpm1_part(tg_at_least(tg_at_most(x, 89.0f), -104.0f), &n) + 1.0f;
    tg_ivec half = n >> 1;
    return p * tg_vpower_of_2(half) * tg_vpower_of_2(n - half);
}
/* The same for x <= 0, as in softmax. */
TG tg_vec tg_vexp_negative(tg_vec x) {
    tg_ivec n;
    tg_vec p = tg_vexpm1_part(tg_at_least(x, -104.0f), &n) + 1.0f;
    return p * tg_vpower_of_2(n + 64) * 5.42101086e-20f; /* 2^-64 */
}

/* x 2^n, where n is whole and from -150 to 0. */
#if defined(__AVX512F__)
TG tg_vec tg_vtimes_power(tg_vec x, tg_vec n) {
    __asm__("vscalefps %1, %0, %0" : "+v"(x) : "v"(n));
    return x;
}
#else
TG tg_vec tg_vtimes_power(tg_vec x, tg_vec n) {
    const tg_vec magic = tg_splat(12582912.0f);
    return x * tg_vpower_of_2((tg_ivec)(n + magic) - (tg_ivec)magic + 64) * 5.42101086e-20f;
}
#endif

/* exp(x) for x <= 0 where sums of it count: 1 ulp, and |x| 2^-26 besides. 2^(n + r) with a
 * polynomial of 2^r whose largest relative error is 2e-9 (Lawson's algorithm). */
TG tg_vec tg_vexp_weight(tg_vec x) {
    const tg_vec magic = tg_splat(12582912.0f);
    x = tg_at_least(x, -104.0f);
    const tg_vec n = x * 1.44269504f + magic - magic, r = x * 1.44269504f - n;
    tg_vec p = tg_splat(0.00015353361959569156f);
    p = p * r + 0.0013398875016719103f;
    p = p * r + 0.00961843691766262f;
    p = p * r + 0.055503323674201965f;
    p = p * r + 0.24022647738456726f;
    p = p * r + 0.6931471824645996f;
    return tg_vtimes_power(p * r + 1.0f, n);
}

#define TG_SIGN_BITS tg_isplat(INT32_MIN)

/* 4 ulp; as tg_sigmoid_f. */
TG tg_vec tg_vsigmoid(tg_vec x) {
    tg_vec e = tg_vexp_negative((tg_vec)((tg_ivec)x | TG_SIGN_BITS)), s = 1.0f / (1.0f + e);
    return tg_pick(x < 0.0f, e * s, s);
}
/* 3 ulp: e / (e + 2) with e = exp(2 x) - 1, which is exact near zero, too. */
TG tg_vec tg_vtanh(tg_vec x) {
    tg_ivec n;
    tg_vec p = tg_vexpm1_part(tg_at_least(tg_at_most(x, 9.1f), -9.1f) * 2.0f, &n);
    tg_vec s = tg_vpower_of_2(n), e = s * p + (s - 1.0f);
    return (tg_vec)((tg_ivec)(e / (e + 2.0f)) | ((tg_ivec)x & TG_SIGN_BITS));
}
#endif

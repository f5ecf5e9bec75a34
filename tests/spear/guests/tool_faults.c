/* Guests that misuse tools, one entry each; every entry prints the final body. The question holds two integers, so that
 * a stub calls the first tool with {"a":1,"b":2}. */
#include "spear.h"

#define SCHEMA(name) "{\"type\":\"function\",\"function\":{\"name\":\"" name "\",\"parameters\":{\"type\":\"object\"}}}"
#define ENTRY(name) __attribute__((export_name(#name))) int name(void)

static char arena[131072] __attribute__((aligned(8)));
static char second_arena[131072] __attribute__((aligned(8)));
static int depth = 0;
static int calls = 0;

static int chat(int32_t index, void *base, int32_t size) {
    char *body = NULL;
    int32_t session = spear_cchat_create(), response, status;
    if (session < 0) {
        printf("create %d\n", (int)session);
        return 1;
    }
    spear_cchat_say(session, "user", "1 and 2");
    spear_cchat_write_fn(session, index, SCHEMA("tool"), sizeof SCHEMA("tool") - 1);
    spear_cchat_set_int(session, "tool_arena_ptr", (int64_t)(uintptr_t)base);
    spear_cchat_set_int(session, "tool_arena_len", size);
    response = spear_cchat_send(session, SPEAR_CCHAT_AUTO_TOOL_CALL);
    status = response < 0 ? response : spear_cchat_body(response, &body);
    if (status < 0) {
        printf("error %d\n", (int)status);
        return 1;
    }
    printf("%s\n", body);
    free(body);
    spear_cchat_close(response);
    spear_cchat_close(session);
    return 0;
}

static int with(spear_tool tool) { return chat((int32_t)(intptr_t)tool, arena, sizeof arena); }

static int32_t give(char *out, uint32_t *out_len, const char *text) {
    uint32_t len = (uint32_t)strlen(text);
    if (len > *out_len) {
        *out_len = len;
        return -SPEAR_ENOSPC;
    }
    memcpy(out, text, len);
    *out_len = len;
    return 0;
}

#define TOOL(name) static int32_t name(const char *args, uint32_t args_len, char *out, uint32_t *out_len)
#define UNUSED (void)args, (void)args_len, (void)out, (void)out_len

TOOL(traps) { UNUSED; __builtin_trap(); }
ENTRY(tool_traps) { return with(traps); }

TOOL(fails) { UNUSED; return 77; }
ENTRY(tool_fails) { return with(fails); }

/* rc 0, but a length beyond the capacity */
TOOL(lies) { UNUSED; *out_len = 0x7fffffff; return 0; }
ENTRY(tool_lies) { return with(lies); }

TOOL(no_utf8) { UNUSED; out[0] = (char)0xff; out[1] = (char)0xfe; *out_len = 2; return 0; }
ENTRY(tool_no_utf8) { return with(no_utf8); }

TOOL(empty) { UNUSED; *out_len = 0; return 0; }
ENTRY(tool_empty) { return with(empty); }

/* echoes its arguments: what the host put into the arena, the NUL behind it included */
TOOL(echoes) {
    if (args[args_len] != '\0') return 1;
    return give(out, out_len, args);
}
ENTRY(tool_echoes) { return with(echoes); }

TOOL(says_capacity) {
    char text[64];
    (void)args_len;
    snprintf(text, sizeof text, "at %d, cap %u, len at %d", (int)(out - args), (unsigned)*out_len,
             (int)((char *)out_len - args));
    return give(out, out_len, text);
}
ENTRY(tool_says_capacity) { return with(says_capacity); }
ENTRY(tool_in_a_small_arena) { return chat((int32_t)(intptr_t)says_capacity, arena, 96); }

/* too small the first time, fits the second */
TOOL(asks_again) {
    UNUSED;
    if (calls++ == 0) {
        *out_len = 20;
        return -SPEAR_ENOSPC;
    }
    return give(out, out_len, *out_len == 20 ? "second call, 20" : "second call, other");
}
ENTRY(tool_asks_again) { return with(asks_again); }

TOOL(always_asks) { UNUSED; *out_len = 20 + (uint32_t)calls++; return -SPEAR_ENOSPC; }
ENTRY(tool_always_asks) { return with(always_asks); }

TOOL(asks_too_much) { UNUSED; *out_len = 0x7ffffff0; return -SPEAR_ENOSPC; }
ENTRY(tool_asks_too_much) { return with(asks_too_much); }

/* a chat inside a tool, with an arena of its own */
TOOL(chats) {
    int32_t session = spear_cchat_create(), response;
    char *body = NULL, *text;
    int32_t result;
    UNUSED;
    spear_cchat_say(session, "user", "inner question");
    response = spear_cchat_send(session, 0);
    if (response < 0 || spear_cchat_body(response, &body) < 0) return 2;
    text = spear_json_text(body, "content");
    result = give(out, out_len, text == NULL ? body : text);
    free(text);
    free(body);
    return result;
}
ENTRY(tool_chats) { return with(chats); }

/* a tool whose chat calls the same tool, without end */
TOOL(recurses) {
    char text[32];
    UNUSED;
    depth++;
    chat((int32_t)(intptr_t)recurses, depth % 2 ? second_arena : arena, sizeof arena);
    snprintf(text, sizeof text, "depth %d", depth);
    depth--;
    return give(out, out_len, text);
}
ENTRY(tool_recurses) { return with(recurses); }

/* deep recursion on the guest's own stack */
static volatile int never = 0;
static int deeper(int n) {
    volatile char frame[512];
    frame[0] = (char)n;
    return never ? 0 : deeper(n + 1) + frame[0];
}
TOOL(overflows) { UNUSED; return deeper(0); }
ENTRY(tool_overflows) { return with(overflows); }
ENTRY(overflow) { return deeper(0); }

TOOL(spins) {
    UNUSED;
    while (!never) {
    }
    return 0;
}
ENTRY(tool_spins) { return with(spins); }
ENTRY(spin) {
    while (!never) {
    }
    return 0;
}

TOOL(sleeps) { UNUSED; spear_sleep_ms(3600 * 1000); return 0; }
ENTRY(tool_sleeps) { return with(sleeps); }
ENTRY(sleep_an_hour) { spear_sleep_ms(3600 * 1000); return 0; }

TOOL(exits) { UNUSED; exit(9); }
ENTRY(tool_exits) { return with(exits); }

/* closes the session and every other fd that a guest could guess, while the send is running */
TOOL(closes) {
    UNUSED;
    for (int32_t fd = SPEAR_FIRST_FD; fd < SPEAR_FIRST_FD + 16; fd++) spear_cchat_close(fd);
    return give(out, out_len, "closed");
}
ENTRY(tool_closes) { return with(closes); }

/* overwrites its own arguments and everything behind its output */
TOOL(scribbles) {
    uint32_t capacity = *out_len;
    memset((char *)(uintptr_t)args, 'x', args_len + 1);
    memset(out, 'y', capacity);
    *out_len = 3;
    return 0;
}
ENTRY(tool_scribbles) { return with(scribbles); }

/* functions of another type, and indices that are no function */
static int32_t two_parameters(int32_t a, int32_t b) { return a + b; }
ENTRY(tool_of_wrong_type) { return chat((int32_t)(intptr_t)two_parameters, arena, sizeof arena); }
ENTRY(tool_out_of_range) { return chat(9999, arena, sizeof arena); }
ENTRY(tool_negative) { return chat(-1, arena, sizeof arena); }
ENTRY(tool_null) { return chat(0, arena, sizeof arena); }
ENTRY(tool_without_arena) { return chat((int32_t)(intptr_t)echoes, NULL, 0); }
ENTRY(tool_arena_too_small) { return chat((int32_t)(intptr_t)echoes, arena, 16); }
ENTRY(tool_arena_outside) { return chat((int32_t)(intptr_t)echoes, (void *)(uintptr_t)0x7fff0000, 131072); }

ENTRY(trap) { __builtin_trap(); }

int main(void) { return 0; }

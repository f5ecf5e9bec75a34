/* Guests of the whole-program tests, one entry each. Build: spear guest build tests/system/system_guests.c */
#include <unistd.h>

#include "spear.h"

#define ENTRY(name) __attribute__((export_name(#name))) int name(void)
#define LITERAL(text) text, sizeof text - 1

static int32_t ask(const char *model, const char *question) {
    int32_t session = spear_cchat_create();
    if (model[0] != '\0') spear_cchat_set_text(session, "model", model);
    spear_cchat_say(session, "user", question);
    return spear_cchat_send(session, SPEAR_CCHAT_ENABLE_METRICS);
}

/* One question; prints the body, whatever it is. */
static int chat(const char *model) {
    char *body = NULL;
    int32_t response = ask(model, "good day");
    if (response < 0 || spear_cchat_body(response, &body) < 0) return 1;
    fwrite(body, 1, strlen(body), stdout);
    return 0;
}
ENTRY(chat_any) { return chat(""); }
ENTRY(chat_small) { return chat("small"); }
ENTRY(chat_nobody) { return chat("nobody-has-this"); }

/* The same, and then every byte of its memory to stdout. */
ENTRY(chat_and_dump) {
    uint32_t end = (uint32_t)__builtin_wasm_memory_size(0) * 65536;
    if (chat("small") != 0) return 1;
    fflush(stdout);
    for (uint32_t at = 16; at < end;) {
        uint32_t size = end - at > 65536 ? 65536 : end - at;
        ssize_t done = write(1, (const void *)(uintptr_t)at, size);
        if (done <= 0) return 2;
        at += (uint32_t)done;
    }
    return 0;
}

/* A backend by its name, which nobody has. */
ENTRY(chat_named) {
    char *body = NULL;
    int32_t session = spear_cchat_create(), response;
    spear_cchat_set_text(session, "backend", "nobody");
    spear_cchat_say(session, "user", "good day");
    response = spear_cchat_send(session, 0);
    if (response < 0 || spear_cchat_body(response, &body) < 0) return 1;
    fwrite(body, 1, strlen(body), stdout);
    return 0;
}

/* A deadline of its own, shorter than the server's answer takes. */
ENTRY(chat_300_ms) {
    char *body = NULL;
    int32_t session = spear_cchat_create(), response;
    spear_cchat_set_int(session, "timeout_ms", 300);
    spear_cchat_say(session, "user", "good day");
    response = spear_cchat_send(session, 0);
    if (response < 0 || spear_cchat_body(response, &body) < 0) return 1;
    fwrite(body, 1, strlen(body), stdout);
    return 0;
}

ENTRY(exit_0) { exit(0); }
ENTRY(exit_1) { exit(1); }
ENTRY(exit_7) { exit(7); }
ENTRY(exit_256) { exit(256); }
ENTRY(exit_300) { exit(300); }
ENTRY(exit_minus_1) { exit(-1); }
ENTRY(trap) { __builtin_trap(); }
ENTRY(seven) { return 7; }

ENTRY(logs) {
    spear_log_text(SPEAR_LOG_INFO, "first");
    printf("out\n");
    fflush(stdout);
    fprintf(stderr, "err\n");
    spear_log_text(SPEAR_LOG_ERROR, "last");
    return 0;
}

/* Says that it is there, then: */
static void here(void) { spear_log_text(SPEAR_LOG_INFO, "here"); }

ENTRY(spin) {
    here();
    for (volatile int n = 0;; n++) {
    }
}
ENTRY(sleep_an_hour) {
    here();
    spear_sleep_ms(3600 * 1000);
    return 0;
}
ENTRY(sleep_a_little) {
    here();
    spear_sleep_ms(300);
    return 0;
}
ENTRY(sleep_wasi) {
    here();
    sleep(3600);
    return 0;
}
ENTRY(chat_here) {
    here();
    return chat("small");
}

/* Prints for ever. */
ENTRY(prints) {
    here();
    for (int n = 0;; n++) printf("%d: a line that fills the pipe before long, whoever reads it\n", n);
}

int main(void) { return chat(""); }

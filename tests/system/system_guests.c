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

/* --- streamed and asynchronous sends */

static int32_t stream(int32_t flags) {
    int32_t session = spear_cchat_create();
    spear_cchat_set_text(session, "model", "small");
    spear_cchat_say(session, "user", "good day");
    return spear_cchat_send(session, flags);
}

static void print_events(int32_t epfd, int32_t response) {
    spear_event ready;
    for (;;) {
        char *event = NULL;
        int32_t length = spear_cchat_event(response, &event);
        if (length == -SPEAR_EAGAIN) {
            spear_wait(epfd, &ready, 1, -1);
            continue;
        }
        if (length <= 0) return;
        printf("%s\n", event);
        free(event);
    }
}

/* Prints every event of a streamed chat, one a line. */
ENTRY(stream_small) {
    int32_t epfd = spear_epoll_create(), response = stream(SPEAR_CCHAT_STREAM | SPEAR_CCHAT_ENABLE_METRICS);
    char *metrics = NULL;
    if (response < 0) return 1;
    spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_ADD, response, SPEAR_EPOLLIN);
    print_events(epfd, response);
    if (spear_cchat_metrics(response, &metrics) >= 0) printf("%s\n", metrics);
    return 0;
}

/* The same within 300 ms. */
ENTRY(stream_300_ms) {
    int32_t epfd = spear_epoll_create(), session = spear_cchat_create(), response;
    spear_cchat_set_int(session, "timeout_ms", 300);
    spear_cchat_say(session, "user", "good day");
    response = spear_cchat_send(session, SPEAR_CCHAT_STREAM);
    spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_ADD, response, SPEAR_EPOLLIN);
    print_events(epfd, response);
    return 0;
}

/* Reads three events, closes, and stays for a while. */
ENTRY(stream_and_close) {
    int32_t epfd = spear_epoll_create(), response = stream(SPEAR_CCHAT_STREAM);
    spear_event ready;
    spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_ADD, response, SPEAR_EPOLLIN);
    for (int read = 0; read < 3;) {
        char *event = NULL;
        if (spear_cchat_event(response, &event) > 0) read++;
        else spear_wait(epfd, &ready, 1, -1);
        free(event);
    }
    spear_cchat_close(response);
    spear_log_text(SPEAR_LOG_INFO, "closed");
    spear_sleep_ms(2000);
    return 0;
}

/* Sends and does not read. */
ENTRY(stream_unread) {
    if (stream(SPEAR_CCHAT_STREAM) < 0) return 1;
    spear_log_text(SPEAR_LOG_INFO, "sent");
    spear_sleep_ms(3600000);
    return 0;
}

/* Sends and ends. */
ENTRY(stream_and_leave) {
    int32_t response = stream(SPEAR_CCHAT_STREAM);
    spear_sleep_ms(300);
    return response < 0;
}

/* Five at once, in one loop; prints how many bodies came. */
ENTRY(async_five) {
    int32_t epfd = spear_epoll_create(), bodies = 0;
    for (int n = 0; n < 5; n++) {
        spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_ADD, stream(SPEAR_CCHAT_ASYNC), SPEAR_EPOLLIN);
    }
    while (bodies < 5) {
        spear_event ready[5];
        int32_t count = spear_wait(epfd, ready, 5, 10000);
        if (count <= 0) return 1;
        for (int n = 0; n < count; n++) {
            char *body = NULL;
            if (spear_cchat_body(ready[n].fd, &body) > 0 && !spear_is_error(body)) bodies++;
            free(body);
            spear_cchat_close(ready[n].fd);
            spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_DEL, ready[n].fd, 0);
        }
    }
    printf("%d", (int)bodies);
    return 0;
}

ENTRY(capabilities) {
    char *text = spear_capabilities_text();
    printf("%s", text == NULL ? "?" : text);
    free(text);
    return 0;
}

/* A question of three parts; prints the body. */
ENTRY(chat_parts) {
    char *body = NULL;
    int32_t session = spear_cchat_create(), response;
    int32_t written = spear_cchat_say_parts(
        session, "user",
        "[{\"type\":\"text\",\"text\":\"what is this?\"},"
        "{\"type\":\"image\",\"detail\":\"low\",\"media\":"
        "{\"kind\":\"inline_base64\",\"mime\":\"image/png\",\"data\":\"iVBORw0KGgo=\"}},"
        "{\"type\":\"text\",\"text\":\"and why?\"}]");
    if (written < 0) return 1;
    response = spear_cchat_send(session, 0);
    if (response < 0 || spear_cchat_body(response, &body) < 0) return 2;
    printf("%s", body);
    return 0;
}

/* An image of 100 000 bytes in place, which the host stores; prints the body. */
ENTRY(chat_large_part) {
    static char json[140000];
    char *body = NULL;
    int32_t session = spear_cchat_create(), response;
    int at = snprintf(json, sizeof json,
                      "[{\"type\":\"image\",\"media\":{\"kind\":\"inline_base64\",\"mime\":\"image/png\",\"data\":\"");
    memset(json + at, 'A', 133336);
    memcpy(json + at + 133336, "\"}}]", 5);
    if (spear_cchat_say_parts(session, "user", json) < 0) return 1;
    response = spear_cchat_send(session, 0);
    if (response < 0 || spear_cchat_body(response, &body) < 0) return 2;
    printf("%s", body);
    return 0;
}

/* A streamed chat in an epoll loop: words are printed as they come, and a tool of ours runs when the model asks. */
#include "spear.h"

static const char ADD[] =
    "{\"type\":\"function\",\"function\":{\"name\":\"add\",\"description\":\"Add two integers.\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}},"
    "\"required\":[\"a\",\"b\"]}}}";

static char arena[131072] __attribute__((aligned(8)));

/* Runs inside the spear_cchat_recv that finds it due. */
static int32_t add(const char *args, uint32_t args_len, char *out, uint32_t *out_len) {
    int64_t a, b;
    (void)args_len;
    if (spear_json_int(args, "a", &a) < 0 || spear_json_int(args, "b", &b) < 0 || *out_len < 24) return -SPEAR_EINVAL;
    *out_len = (uint32_t)snprintf(out, *out_len, "%lld", (long long)((uint64_t)a + (uint64_t)b));
    return 0;
}

static void show(const char *event) {
    char *text = NULL;
    if (spear_event_is(event, "content_delta")) {
        text = spear_json_text(event, "delta");
        printf("%s", text == NULL ? "" : text);
    } else if (spear_event_is(event, "tool_call")) {
        text = spear_json_text(event, "arguments");
        printf("[add %s", text == NULL ? "" : text);
    } else if (spear_event_is(event, "tool_result")) {
        text = spear_json_text(event, "content");
        printf(" = %s]\n", text == NULL ? "" : text);
    } else if (spear_event_is(event, "error")) {
        text = spear_json_text(event, "message");
        fprintf(stderr, "%s\n", text == NULL ? event : text);
    }
    fflush(stdout);
    free(text);
}

/* Reads what is there; 0 once the last event has been read, 1 while there may be more. */
static int drain(int32_t response, int *failed) {
    for (;;) {
        char *event = NULL;
        int32_t length = spear_cchat_event(response, &event);
        if (length > 0) {
            show(event);
            if (spear_event_is(event, "error")) *failed = 1;
        } else if (length < 0 && length != -SPEAR_EAGAIN) {
            *failed = 1;
        }
        free(event);
        if (length == -SPEAR_EAGAIN) return 1;
        if (length <= 0) return 0;
    }
}

int main(void) {
    spear_event ready;
    char *metrics = NULL;
    int failed = 0;
    int32_t epfd = spear_epoll_create(), session = spear_cchat_create(), response;
    if (epfd < 0 || session < 0) return 1;
    spear_cchat_say(session, "user", "What is 20 plus 22? Use the tool.");
    if (spear_cchat_tool(session, add, ADD) < 0 || spear_cchat_set_arena(session, arena, sizeof arena) < 0) return 1;

    response = spear_cchat_send(session, SPEAR_CCHAT_STREAM | SPEAR_CCHAT_AUTO_TOOL_CALL | SPEAR_CCHAT_ENABLE_METRICS);
    if (response < 0) {
        fprintf(stderr, "not sent: error %d\n", (int)-response);
        return 1;
    }
    spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_ADD, response, SPEAR_EPOLLIN | SPEAR_EPOLLHUP);
    do {
        if (spear_wait(epfd, &ready, 1, -1) < 0) return 1;
    } while (drain(response, &failed));
    if (!failed && spear_cchat_metrics(response, &metrics) >= 0) printf("\nmetrics: %s\n", metrics);

    free(metrics);
    spear_cchat_close(response);
    spear_cchat_close(session);
    spear_epoll_close(epfd);
    return failed;
}

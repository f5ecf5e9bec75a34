/* A chat with a tool: the model asks for add(a, b), the host calls our function, the model answers with the result. */
#include "spear.h"

static const char ADD[] =
    "{\"type\":\"function\",\"function\":{\"name\":\"add\",\"description\":\"Add two integers.\","
    "\"parameters\":{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"},\"b\":{\"type\":\"integer\"}},"
    "\"required\":[\"a\",\"b\"]}}}";

static char arena[131072] __attribute__((aligned(8)));

static int32_t add(const char *args, uint32_t args_len, char *out, uint32_t *out_len) {
    char text[24], line[96];
    int64_t a, b;
    int length;
    (void)args_len;
    if (spear_json_int(args, "a", &a) < 0 || spear_json_int(args, "b", &b) < 0) return -SPEAR_EINVAL;
    length = snprintf(text, sizeof text, "%lld", (long long)((uint64_t)a + (uint64_t)b)); /* wraps around */
    if ((uint32_t)length > *out_len) {
        *out_len = (uint32_t)length;
        return -SPEAR_ENOSPC;
    }
    memcpy(out, text, (size_t)length);
    *out_len = (uint32_t)length;
    snprintf(line, sizeof line, "add(%lld, %lld) = %s", (long long)a, (long long)b, text);
    spear_log_text(SPEAR_LOG_INFO, line);
    return 0;
}

int main(void) {
    char *body = NULL, *metrics = NULL, *text;
    int failed;
    int32_t session = spear_cchat_create(), response, status;
    if (session < 0) return 1;
    spear_cchat_say(session, "user", "What is 20 plus 22? Use the tool.");
    if (spear_cchat_tool(session, add, ADD) < 0 || spear_cchat_set_arena(session, arena, sizeof arena) < 0) return 1;

    response = spear_cchat_send(session, SPEAR_CCHAT_AUTO_TOOL_CALL | SPEAR_CCHAT_ENABLE_METRICS);
    status = response < 0 ? response : spear_cchat_body(response, &body);
    if (status < 0) {
        fprintf(stderr, "no response: error %d\n", (int)-status);
        return 1;
    }
    failed = spear_is_error(body);
    text = spear_json_text(body, failed ? "message" : "content");
    fprintf(failed ? stderr : stdout, "%s\n", text == NULL ? body : text);
    if (spear_cchat_metrics(response, &metrics) >= 0) printf("metrics: %s\n", metrics);

    free(text);
    free(metrics);
    free(body);
    spear_cchat_close(response);
    spear_cchat_close(session);
    return failed;
}

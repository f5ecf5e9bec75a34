/* A routing filter: a long request stays on the host's own side. Of more than LONG estimated tokens of input, it drops
 * every candidate that is not local. The host asks it, in a fresh instance each time; it is not run. */
#include "spear.h"

#define LONG 2000

/* The host places the question and the answer where this says. */
__attribute__((export_name("spear_alloc"))) void *spear_alloc(uint32_t size) { return malloc(size); }

/* Appends `text` as far as there is room, and counts all of it. */
static uint32_t put(char *out, uint32_t room, uint32_t length, const char *text) {
    for (; *text != '\0'; text++, length++) {
        if (length < room) out[length] = *text;
    }
    return length;
}

/* The question is JSON with its keys sorted, followed by a NUL: in each candidate `hosting` comes before `name`. */
__attribute__((export_name("spear_router_filter"))) int32_t spear_router_filter(const char *in, uint32_t in_len,
                                                                                char *out, uint32_t *out_len) {
    static const char HOSTING[] = "\"hosting\":\"";
    uint32_t room = *out_len, length = 0, dropped = 0;
    int64_t tokens;
    (void)in_len;
    if (spear_json_int(in, "input_tokens", &tokens) < 0) return -SPEAR_EINVAL;
    length = put(out, room, length, "{\"drop\":[");
    for (const char *at = in; tokens > LONG && (at = strstr(at, HOSTING)) != NULL;) {
        char *name, *quoted;
        at += sizeof HOSTING - 1;
        if (strncmp(at, "local\"", 6) == 0) continue;
        name = spear_json_text(at, "name");
        quoted = name == NULL ? NULL : spear_json_quote(name);
        if (quoted == NULL) return -SPEAR_ENOMEM;
        if (dropped++ > 0) length = put(out, room, length, ",");
        length = put(out, room, length, quoted);
        free(quoted);
        free(name);
    }
    *out_len = length = put(out, room, length, "]}");
    if (length > room) return -SPEAR_ENOSPC;
    if (dropped > 0) spear_log_text(SPEAR_LOG_INFO, "a long request stays here");
    return 0;
}

int main(void) {
    spear_log_text(SPEAR_LOG_ERROR, "this guest is a filter: name it under [[spear.filters]]");
    return 1;
}

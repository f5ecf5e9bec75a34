/* Exercises the helpers of spear.h against whatever body the host gives. */
#include "spear.h"

#define ENTRY(name) __attribute__((export_name(#name))) int name(void)

static int32_t session, response;

static int32_t ask(char **body) {
    session = spear_cchat_create();
    spear_cchat_say(session, "user", "?");
    response = spear_cchat_send(session, 0);
    return spear_cchat_body(response, body);
}

/* what the reader made of the body: its length or an error */
ENTRY(read_body) {
    char *body;
    int32_t result = ask(&body);
    if ((body == NULL) != (result < 0)) return -1000;
    if (body != NULL && strlen(body) != (size_t)result) return -1001;
    return result;
}

/* the content to stdout, and back to the host as a parameter; 1 when the body has no content */
ENTRY(echo_content) {
    char *body, *text;
    if (ask(&body) < 0) return -1;
    text = spear_json_text(body, "content");
    if (text == NULL) return 1;
    fputs(text, stdout);
    return spear_cchat_set_text(session, "echo", text);
}

/* the member `a` to stdout; its error otherwise */
ENTRY(echo_int) {
    char *body;
    int64_t value;
    int32_t result;
    if (ask(&body) < 0) return -1;
    result = spear_json_int(body, "a", &value);
    if (result == 0) printf("%lld", (long long)value);
    return result;
}

ENTRY(is_error) {
    char *body;
    return ask(&body) < 0 ? -1 : spear_is_error(body);
}

/* longer than a record may be: cut, not refused */
ENTRY(log_much) {
    static char text[20000];
    memset(text, 'x', sizeof text - 1);
    return spear_log_text(SPEAR_LOG_ERROR, text);
}

int main(void) { return 0; }

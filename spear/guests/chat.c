/* One chat: asks a question, prints the text of the answer.
 *
 * Build your own with -DQUESTION='"..."' and, where the host has several models, -DMODEL='"small-chat"'. */
#include "spear.h"

#ifndef QUESTION
#define QUESTION "In one sentence: what is an actor?"
#endif

int main(void) {
    char *body = NULL, *text;
    int failed;
    int32_t session = spear_cchat_create(), response, status;
    if (session < 0) return 1;
    spear_cchat_say(session, "system", "You are brief.");
    spear_cchat_say(session, "user", QUESTION);
#ifdef MODEL
    spear_cchat_set_text(session, "model", MODEL);
#endif
    spear_log_text(SPEAR_LOG_INFO, "asking: " QUESTION);

    response = spear_cchat_send(session, 0);
    status = response < 0 ? response : spear_cchat_body(response, &body);
    if (status < 0) {
        fprintf(stderr, "no response: error %d\n", (int)-status);
        return 1;
    }
    failed = spear_is_error(body);
    text = spear_json_text(body, failed ? "message" : "content");
    fprintf(failed ? stderr : stdout, "%s\n", text == NULL ? body : text);

    free(text);
    free(body);
    spear_cchat_close(response);
    spear_cchat_close(session);
    return failed;
}

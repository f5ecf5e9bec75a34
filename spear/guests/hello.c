/* The smallest guest: a line in the host's log, one on stdout, one on stderr.
 *
 * Other entries of the same module (run them by name): `answer` returns a number, which becomes the output;
 * `fail` ends with exit code 7. */
#include "spear.h"

int main(void) {
    spear_log_text(SPEAR_LOG_INFO, "hello from a guest");
    printf("hello, world\n");
    fprintf(stderr, "and this is stderr\n");
    return 0;
}

__attribute__((export_name("answer"))) int answer(void) { return 42; }

__attribute__((export_name("fail"))) void fail(void) {
    spear_log_text(SPEAR_LOG_WARN, "about to exit with 7");
    exit(7);
}

/* What this host offers to this guest, and what it says of a failure. */
#include "spear.h"

static int show(const char *what, char *text) {
    printf("%s: %s\n", what, text == NULL ? "?" : text);
    free(text);
    return text == NULL;
}

int main(void) {
    int32_t version = spear_abi_version();
    int failed;
    printf("abi: %d.%d\n", (int)(version >> 16), (int)(version & 0xffff));
    if (version < SPEAR_ABI_1_1) return 1;
    failed = show("capabilities", spear_capabilities_text());
    failed |= show("before", spear_last_error_text());
    spear_cchat_send(1, 0); /* no such descriptor */
    failed |= show("after", spear_last_error_text());
    return failed;
}

/* An image from a text: asks for one, reads its bytes from the media store, and says what they are. */
#include "spear.h"

#define PROMPT "a lighthouse in the evening"

int main(void) {
    char *body = NULL, *uri, *mime, *bytes = malloc(SPEAR_READ_BYTES);
    unsigned char head[8] = {0};
    uint32_t total = 0, len;
    int32_t request = spear_img_create(), response, image, count;
    if (request < 0 || bytes == NULL) return 1;
    spear_op_set(spear_img_ctl, request, "size", "\"256x256\"");
    spear_img_write(request, PROMPT, (uint32_t)strlen(PROMPT));
    response = spear_img_send(request, 0);
    if (response < 0 || spear_img_body(response, &body) < 0) return 1;
    if (spear_is_error(body)) {
        fprintf(stderr, "%s\n", body);
        return 1;
    }
    uri = spear_json_text(body, "uri");
    mime = spear_json_text(body, "mime");
    if (uri == NULL || mime == NULL) return 1;
    image = spear_media_open(uri, (uint32_t)strlen(uri));
    if (image < 0) return 1;
    while (len = SPEAR_READ_BYTES, (count = spear_media_read(image, bytes, &len)) > 0) {
        if (total == 0) memcpy(head, bytes, count < 8 ? (size_t)count : 8);
        total += (uint32_t)count;
    }
    if (count < 0) return 1;
    printf("%s of %u bytes%s\n", mime, (unsigned)total, memcmp(head, "\x89PNG\r\n\x1a\n", 8) == 0 ? ", a real PNG" : "");
    spear_media_close(image);
    free(mime);
    free(uri);
    free(body);
    return total == 0;
}

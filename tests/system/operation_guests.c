/* Each operation by a guest, one entry each: prints the body it gets, or the events of a stream, one a line.
 * Build: spear guest build tests/system/operation_guests.c */
#include "spear.h"

#define ENTRY(name) __attribute__((export_name(#name))) int name(void)
#define SENTENCE "one two three four five"

/* 16 x 16, its left half clear: an image and a mask. */
static const unsigned char PNG[] = {
    0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a, 0x00, 0x00, 0x00, 0x0d, 0x49, 0x48, 0x44, 0x52,
    0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x10, 0x08, 0x06, 0x00, 0x00, 0x00, 0x1f, 0xf3, 0xff,
    0x61, 0x00, 0x00, 0x00, 0x1c, 0x49, 0x44, 0x41, 0x54, 0x78, 0xda, 0x63, 0x60, 0x20, 0x00, 0x14,
    0x1c, 0x1a, 0xfe, 0xe3, 0xc3, 0x0c, 0xa3, 0x06, 0x8c, 0x1a, 0x30, 0x6a, 0xc0, 0x70, 0x31, 0x00,
    0x00, 0xec, 0x5a, 0xef, 0x81, 0xf4, 0x3f, 0x17, 0xe6, 0x00, 0x00, 0x00, 0x00, 0x49, 0x45, 0x4e,
    0x44, 0xae, 0x42, 0x60, 0x82,
};

typedef int32_t (*reader)(int32_t fd, char **data);

/* A reference to PNG, in memory that nobody frees; NULL when the store refused it. */
static char *picture(void) {
    char *ref = NULL;
    int32_t fd = spear_media_create("image/png", 9);
    if (fd < 0 || spear_media_write(fd, PNG, sizeof PNG) != sizeof PNG || spear_media_ref(fd, &ref) < 0) return NULL;
    return ref;
}

static int print_body(int32_t response, reader read) {
    char *body = NULL;
    if (response < 0 || read(response, &body) < 0) return 1;
    puts(body);
    return 0;
}

/* Until the empty one, which is the end. */
static int print_events(int32_t response, reader read) {
    int32_t epfd = spear_epoll_create(), size;
    spear_event ready;
    char *event;
    if (response < 0 || spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_ADD, response, SPEAR_EPOLLIN | SPEAR_EPOLLHUP) < 0) return 1;
    for (;;) {
        if (spear_wait(epfd, &ready, 1, 20000) != 1) return 2;
        while ((size = read(response, &event)) > 0) {
            puts(event);
            free(event);
        }
        if (size == 0) return 0;
        if (size != -SPEAR_EAGAIN) return 3;
    }
}

static int32_t chat_session(void) {
    int32_t session = spear_cchat_create();
    spear_cchat_set_text(session, "model", "");
    return session;
}

ENTRY(chat) {
    int32_t session = chat_session();
    spear_cchat_say(session, "user", "good day");
    return print_body(spear_cchat_send(session, 0), spear_cchat_body);
}

ENTRY(chat_streamed) {
    int32_t session = chat_session();
    spear_cchat_say(session, "user", "good day");
    return print_events(spear_cchat_send(session, SPEAR_CCHAT_STREAM), spear_cchat_event);
}

ENTRY(chat_image) {
    int32_t session = chat_session();
    char parts[1024], *ref = picture();
    if (ref == NULL) return 1;
    snprintf(parts, sizeof parts, "[{\"type\":\"text\",\"text\":\"good day\"},{\"type\":\"image\",\"media\":%s}]", ref);
    if (spear_cchat_say_parts(session, "user", parts) < 0) return 1;
    return print_body(spear_cchat_send(session, 0), spear_cchat_body);
}

ENTRY(embed) {
    int32_t request = spear_emb_create();
    spear_emb_write(request, "one", 3);
    spear_emb_write(request, "three", 5);
    return print_body(spear_emb_send(request, 0), spear_emb_body);
}

ENTRY(draw) {
    int32_t request = spear_img_create();
    spear_op_set(spear_img_ctl, request, "size", "\"64x64\"");
    spear_img_write(request, "a boat", 6);
    return print_body(spear_img_send(request, 0), spear_img_body);
}

ENTRY(redraw) {
    int32_t request = spear_img_create();
    char *ref = picture();
    if (ref == NULL || spear_op_set(spear_img_ctl, request, "image", ref) < 0) return 1;
    if (spear_op_set(spear_img_ctl, request, "mask", ref) < 0) return 1;
    spear_op_set(spear_img_ctl, request, "size", "\"64x64\"");
    spear_img_write(request, "a boat", 6);
    return print_body(spear_img_send(request, 0), spear_img_body);
}

static int32_t sentence(void) {
    int32_t request = spear_tts_create();
    spear_op_set(spear_tts_ctl, request, "voice", "\"en-us+klatt2\"");
    spear_op_set(spear_tts_ctl, request, "speed", "0.71");
    spear_op_set(spear_tts_ctl, request, "format", "\"wav\"");
    spear_tts_write(request, SENTENCE, sizeof SENTENCE - 1);
    return request;
}

ENTRY(say) { return print_body(spear_tts_send(sentence(), 0), spear_tts_body); }

ENTRY(say_streamed) { return print_events(spear_tts_send(sentence(), SPEAR_OP_STREAM), spear_tts_body); }

/* A request to transcribe what was said; below 0 when it was not. */
static int32_t recording(void) {
    char *said = NULL, *from, *end;
    int32_t request = spear_asr_create(), response = spear_tts_send(sentence(), 0);
    if (response < 0 || spear_tts_body(response, &said) < 0) return -1;
    from = strstr(said, "\"audio\":{");
    if (from == NULL || (end = strchr(from, '}')) == NULL) {
        puts(said);
        return -1;
    }
    end[1] = '\0';
    return spear_op_set(spear_asr_ctl, request, "audio", from + 8) < 0 ? -1 : request;
}

ENTRY(hear) {
    int32_t request = recording();
    return request < 0 ? 1 : print_body(spear_asr_send(request, 0), spear_asr_body);
}

ENTRY(hear_streamed) {
    int32_t request = recording();
    return request < 0 ? 1 : print_events(spear_asr_send(request, SPEAR_OP_STREAM), spear_asr_body);
}

ENTRY(translate) {
    int32_t request = recording();
    if (request < 0 || spear_op_set(spear_asr_ctl, request, "translate", "true") < 0) return 1;
    return print_body(spear_asr_send(request, 0), spear_asr_body);
}

int main(void) { return chat(); }

/* Four operations at once in one loop: a streamed chat, embeddings, an image and speech, each as it gets ready. */
#include "spear.h"

enum { CHAT, EMBEDDINGS, IMAGE, SPEECH, COUNT };

static const char *const NAMES[COUNT] = {"chat", "embeddings", "image", "speech"};

static int32_t write_text(int32_t (*write)(int32_t, const void *, uint32_t), int32_t fd, const char *text) {
    return write(fd, text, (uint32_t)strlen(text));
}

/* Starts all of them; their response fds, negative where one could not be sent. */
static void start(int32_t fds[COUNT]) {
    int32_t chat = spear_cchat_create(), emb = spear_emb_create(), img = spear_img_create(), tts = spear_tts_create();
    spear_cchat_say(chat, "user", "Count to three.");
    write_text(spear_emb_write, emb, "one");
    write_text(spear_emb_write, emb, "two");
    write_text(spear_img_write, img, "three apples");
    write_text(spear_tts_write, tts, "one, two, three");
    fds[CHAT] = spear_cchat_send(chat, SPEAR_OP_STREAM);
    fds[EMBEDDINGS] = spear_emb_send(emb, SPEAR_OP_ASYNC);
    fds[IMAGE] = spear_img_send(img, SPEAR_OP_ASYNC);
    fds[SPEECH] = spear_tts_send(tts, SPEAR_OP_ASYNC);
}

static int32_t receive(int which, int32_t fd, char **data) {
    switch (which) {
        case CHAT: return spear_cchat_body(fd, data);
        case EMBEDDINGS: return spear_emb_body(fd, data);
        case IMAGE: return spear_img_body(fd, data);
        default: return spear_tts_body(fd, data);
    }
}

/* Whether this one has ended with what was read. A chat has ended with its last event. */
static int is_last(int which, const char *data) {
    return which != CHAT || strstr(data, "\"type\":\"completed\"") != NULL || strstr(data, "\"type\":\"error\"") != NULL;
}

int main(void) {
    int32_t fds[COUNT], epfd = spear_epoll_create();
    int open = COUNT, failed = 0, events_seen = 0;
    spear_event events[COUNT];
    start(fds);
    for (int which = 0; which < COUNT; which++) {
        if (fds[which] < 0) return 1;
        spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_ADD, fds[which], SPEAR_EPOLLIN | SPEAR_EPOLLHUP);
    }
    while (open > 0) {
        int32_t ready = spear_wait(epfd, events, COUNT, 30000);
        if (ready <= 0) return 1; /* an error, or half a minute without anything */
        for (int n = 0; n < ready; n++) {
            int which = 0;
            char *data = NULL;
            while (fds[which] != events[n].fd) which++;
            if (receive(which, fds[which], &data) < 0) return 1;
            events_seen += which == CHAT;
            if (is_last(which, data)) {
                int bad = strstr(data, "\"error\":{") != NULL;
                printf("%s %s\n", NAMES[which], bad ? data : "done");
                failed += bad;
                spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_DEL, fds[which], 0);
                spear_cchat_close(fds[which]); /* every close closes any kind */
                open--;
            }
            free(data);
        }
    }
    printf("%d events of the chat\n", events_seen);
    return failed != 0;
}

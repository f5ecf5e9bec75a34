/* Waiting: time-outs, a response that becomes readable, what a close looks like. Each step checks what it sees. */
#include "spear.h"

static int failures = 0;

static void expect(const char *what, int64_t seen, int64_t wanted) {
    printf("%-44s %s\n", what, seen == wanted ? "ok" : "WRONG");
    if (seen == wanted) return;
    fprintf(stderr, "%s: %lld instead of %lld\n", what, (long long)seen, (long long)wanted);
    failures++;
}

int main(void) {
    const int32_t interest = SPEAR_EPOLLIN | SPEAR_EPOLLERR | SPEAR_EPOLLHUP;
    spear_event events[4];
    char *body = NULL;
    int64_t start;
    int32_t epfd = spear_epoll_create(), session = spear_cchat_create(), response;
    if (epfd < 0 || session < 0) return 1;

    expect("an empty set, no waiting", spear_wait(epfd, events, 4, 0), 0);
    start = spear_time_now_ms();
    expect("an empty set, 50 ms", spear_wait(epfd, events, 4, 50), 0);
    expect("  took at least 45 ms", spear_time_now_ms() - start >= 45, 1);

    expect("watch the session", spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_ADD, session, interest), 0);
    expect("  which is never ready by itself", spear_wait(epfd, events, 4, 0), 0);

    spear_cchat_say(session, "user", "ready?");
    response = spear_cchat_send(session, 0);
    expect("send gives a response fd", response >= SPEAR_FIRST_FD, 1);
    expect("watch it", spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_ADD, response, interest), 0);
    expect("one event", spear_wait(epfd, events, 4, -1), 1);
    expect("  for the response", events[0].fd, response);
    expect("  readable", events[0].events, SPEAR_EPOLLIN);
    expect("read it", spear_cchat_body(response, &body) > 0, 1);
    expect("it is still there (level-triggered)", spear_wait(epfd, events, 4, 0), 1);
    printf("%s\n", body == NULL ? "" : body);
    free(body);

    expect("close the response", spear_cchat_close(response), 0);
    expect("a close shows", spear_wait(epfd, events, 4, 1000), 1);
    expect("  as a hang-up alone", events[0].events, SPEAR_EPOLLHUP);
    expect("a closed fd cannot be read", spear_cchat_body(response, &body), -SPEAR_EBADF);
    expect("closing again is fine", spear_cchat_close(response), 0);
    expect("stop watching", spear_epoll_ctl(epfd, SPEAR_EPOLL_CTL_DEL, response, 0), 0);
    expect("nothing is left", spear_wait(epfd, events, 4, 0), 0);
    expect("no room for one event", spear_wait(epfd, events, 0, 0), -SPEAR_ENOSPC);

    expect("close the session", spear_cchat_close(session), 0);
    expect("close the epoll", spear_epoll_close(epfd), 0);
    expect("a closed epoll cannot wait", spear_wait(epfd, events, 4, 0), -SPEAR_EBADF);
    return failures != 0;
}

/* Embeddings: three sentences, and which two of them are closest to each other. */
#include "spear.h"

#define COUNT 3

static const char *const SENTENCES[COUNT] = {
    "The cat sleeps on the warm sofa.",
    "A cat is asleep on the sofa.",
    "Interest rates were raised by a quarter of a point.",
};

/* The vectors of the body, {"...","vectors":[[0.1,...],...]}, one behind the other; how many numbers there are. */
static int read_vectors(char *body, double **numbers) {
    char *at = strstr(body, "\"vectors\":[[");
    int count = 0, capacity = 0;
    *numbers = NULL;
    if (at == NULL) return 0;
    for (at += 12; *at != '\0' && strncmp(at, "]]", 2) != 0; count++) {
        char *end;
        while (*at == '[' || *at == ']' || *at == ',') at++;
        if (count == capacity) *numbers = realloc(*numbers, (size_t)(capacity = capacity * 2 + 256) * sizeof **numbers);
        if (*numbers == NULL) return 0;
        (*numbers)[count] = strtod(at, &end);
        if (end == at) return 0;
        at = end;
    }
    return count;
}

static double product(const double *a, const double *b, int size) {
    double sum = 0;
    for (int n = 0; n < size; n++) sum += a[n] * b[n];
    return sum;
}

int main(void) {
    char *body = NULL;
    double *numbers, best = -1;
    int count, size, first = 0, second = 1;
    int32_t request = spear_emb_create(), response;
    if (request < 0) return 1;
    for (int n = 0; n < COUNT; n++) {
        if (spear_emb_write(request, SENTENCES[n], (uint32_t)strlen(SENTENCES[n])) < 0) return 1;
    }
    response = spear_emb_send(request, 0);
    if (response < 0 || spear_emb_body(response, &body) < 0) return 1;
    if (spear_is_error(body)) {
        fprintf(stderr, "%s\n", body);
        return 1;
    }
    count = read_vectors(body, &numbers);
    size = count / COUNT;
    if (size == 0 || count % COUNT != 0) return 1;
    for (int a = 0; a < COUNT; a++) {
        for (int b = a + 1; b < COUNT; b++) {
            const double *x = numbers + a * size, *y = numbers + b * size;
            /* Squares suffice to compare, and need no square root. */
            double dot = product(x, y, size), likeness = dot * dot / (product(x, x, size) * product(y, y, size));
            if (dot > 0 && likeness > best) {
                best = likeness;
                first = a;
                second = b;
            }
        }
    }
    printf("%d numbers for each sentence; the closest are:\n  %s\n  %s\n", size, SENTENCES[first], SENTENCES[second]);
    spear_emb_close(response);
    spear_emb_close(request);
    return 0;
}

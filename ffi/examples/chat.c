/* Two people on one machine talk through a Sluice server over UDP.
 *
 *   chat ADDRESS PORT PINS ALICE TOKEN BOB TOKEN
 *
 * ADDRESS is an IPv4 address; PINS is pins of GET /endpoints; the tokens are those of
 * POST /users/login. Alice writes, Bob answers; then Alice's client goes and comes back from what
 * it kept, without her token. Exits with 0 if all of that happened.
 *
 * POSIX sockets here; on a device put its own in place of `open_socket`, `pump` and `wait_for`. */

#define _DEFAULT_SOURCE

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "sluice.h"

#define PATIENCE_US (60ull * 1000 * 1000)

struct person {
  const char *name;
  struct sluice_client *client;
  int socket;
  int connected, resumed, sent, heard, saw_typing, heard_ephemeral, ended;
};

static uint64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void check(int32_t status, const char *what) {
  if (status < 0) {
    fprintf(stderr, "%s: %s\n", what, sluice_error_text(status));
    exit(1);
  }
}

static int open_socket(const char *address, const char *port) {
  struct sockaddr_in server = {0};
  int opened = socket(AF_INET, SOCK_DGRAM, 0);
  server.sin_family = AF_INET;
  server.sin_port = htons((uint16_t)atoi(port));
  if (inet_pton(AF_INET, address, &server.sin_addr) != 1) {
    fprintf(stderr, "%s is no IPv4 address\n", address);
    exit(1);
  }
  if (opened < 0 ||
      connect(opened, (struct sockaddr *)&server, sizeof server) != 0) {
    perror("socket");
    exit(1);
  }
#if defined(IP_MTU_DISCOVER) && defined(IP_PMTUDISC_PROBE)
  /* The session looks for the largest datagram itself; the system must not cut them. */
  {
    int probe = IP_PMTUDISC_PROBE;
    (void)setsockopt(opened, IPPROTO_IP, IP_MTU_DISCOVER, &probe, sizeof probe);
  }
#endif
  return opened;
}

static struct person join(const char *name, const char *device, struct sluice_bytes token,
                          struct sluice_bytes state, const char *pins, int opened) {
  struct person person = {0};
  struct sluice_config config = {0};
  person.name = name;
  person.socket = opened;
  config.user = sluice_text(name);
  config.device = sluice_text(device);
  config.token = token;
  config.state = state;
  config.pins = sluice_text(pins);
  config.platform = 6;
  config.unix_ms = (uint64_t)time(NULL) * 1000;
  if (getentropy(config.random, sizeof config.random) != 0) {
    perror("getentropy");
    exit(1);
  }
  check(sluice_connect(&config, now_us(), &person.client), "connect");
  return person;
}

static void print(const struct person *person, const char *what, struct sluice_bytes said) {
  printf("%s: %s %.*s\n", person->name, what, (int)said.len,
         said.len ? (const char *)said.data : "");
}

static void take_event(struct person *person, const struct sluice_event *event) {
  switch (event->kind) {
  case SLUICE_EVENT_KIND_CONNECTED:
    print(person, event->flag ? "back" : "connected", sluice_text(""));
    person->connected = 1;
    person->resumed = (int)event->flag;
    break;
  case SLUICE_EVENT_KIND_DISCONNECTED:
    print(person, "disconnected:", event->text);
    person->connected = 0;
    break;
  case SLUICE_EVENT_KIND_ENDED:
    print(person, "ended:", event->text);
    person->ended = 1;
    break;
  case SLUICE_EVENT_KIND_MESSAGE:
    if (!event->flag) {
      print(person, "reads", event->body);
      check(sluice_read(person->client, event->conversation, event->seq, now_us()), "read");
      person->heard++;
    }
    break;
  case SLUICE_EVENT_KIND_EPHEMERAL:
    print(person, "overhears", event->body);
    person->heard_ephemeral = 1;
    break;
  case SLUICE_EVENT_KIND_TYPING:
    print(person, "sees someone writing:", event->user);
    person->saw_typing = 1;
    break;
  case SLUICE_EVENT_KIND_SENT:
    printf("%s: stored as %llu\n", person->name, (unsigned long long)event->seq);
    person->sent++;
    break;
  case SLUICE_EVENT_KIND_REFUSED:
    print(person, "refused:", event->text);
    exit(1);
  default: /* A later library may tell more. */
    break;
  }
}

/* Sends what is due, takes what has come, tells what has happened. */
static void pump(struct person *person) {
  uint8_t datagram[SLUICE_RECEIVE_MAX_BYTES];
  struct sluice_event event;
  ssize_t came;
  int32_t length;
  check(sluice_on_timeout(person->client, now_us()), "on_timeout");
  while ((came = recv(person->socket, datagram, sizeof datagram, MSG_DONTWAIT)) >= 0)
    check(sluice_receive(person->client, datagram, (size_t)came, now_us()), "receive");
  while ((length = sluice_next_event(person->client, &event, now_us())) > 0)
    take_event(person, &event);
  check(length, "next_event");
  while ((length = sluice_transmit(person->client, datagram, sizeof datagram, now_us())) > 0)
    (void)!send(person->socket, datagram, (size_t)length, 0); /* What is lost is sent again. */
  check(length, "transmit");
}

/* Until a datagram comes for one of them, a timer rings, or a moment has passed. */
static void wait_for(const struct person *people, int count) {
  struct pollfd sockets[2];
  uint64_t at = now_us(), next = at + 100000;
  int i;
  for (i = 0; i < count; i++) {
    uint64_t timeout = sluice_timeout(people[i].client);
    next = timeout < next ? timeout : next;
    sockets[i].fd = people[i].socket;
    sockets[i].events = POLLIN;
  }
  (void)poll(sockets, (nfds_t)count, next > at ? (int)((next - at + 999) / 1000) : 0);
}

static void leave(struct person *person) {
  check(sluice_close(person->client, 0, now_us()), "close");
  pump(person);
  sluice_free(person->client);
  person->client = NULL;
}

int main(int argc, char **argv) {
  struct person people[2], *alice = &people[0], *bob = &people[1];
  uint64_t until = now_us() + PATIENCE_US, again = 0;
  struct sluice_bytes none = sluice_text(NULL), state;
  uint8_t *kept;
  size_t length = 0;
  int answered = 0;

  if (argc != 8 || sluice_abi_version() != SLUICE_ABI_VERSION) {
    fprintf(stderr, "usage: chat ADDRESS PORT PINS ALICE TOKEN BOB TOKEN\n");
    return 2;
  }
  *alice = join(argv[4], "c-alice", sluice_text(argv[5]), none, argv[3],
                open_socket(argv[1], argv[2]));
  *bob = join(argv[6], "c-bob", sluice_text(argv[7]), none, argv[3],
              open_socket(argv[1], argv[2]));
  check(sluice_send(alice->client, sluice_to_user(bob->name), 0, sluice_text("hello from C"),
                    now_us(), NULL),
        "send");

  while (!(alice->sent && alice->heard && bob->sent && bob->saw_typing && bob->heard_ephemeral)) {
    if (now_us() > until || alice->ended || bob->ended) {
      fprintf(stderr, "not all was said and heard\n");
      return 1;
    }
    if (bob->heard && !answered) {
      check(sluice_send(bob->client, sluice_to_user(alice->name), 0,
                        sluice_text("hello from C too"), now_us(), NULL),
            "answer");
      answered = 1;
    }
    /* Nobody promises that these arrive, so they are said until they do. */
    if (alice->connected && bob->connected && now_us() >= again) {
      again = now_us() + 300000;
      check(sluice_typing(alice->client, sluice_to_user(bob->name), now_us()), "typing");
      check(sluice_send_ephemeral(alice->client, sluice_to_user(bob->name), 7,
                                  sluice_text("x=3 y=4"), now_us()),
            "ephemeral");
    }
    pump(alice);
    pump(bob);
    wait_for(people, 2);
  }

  /* Alice goes, and comes back from what her client kept. */
  check(sluice_close(alice->client, 0, now_us()), "close");
  pump(alice);
  (void)sluice_state(alice->client, NULL, 0, &length);
  kept = (uint8_t *)malloc(length);
  check(kept ? sluice_state(alice->client, kept, length, &length)
             : (int32_t)SLUICE_STATUS_INTERNAL,
        "state");
  sluice_free(alice->client);
  state.data = kept;
  state.len = length;
  *alice = join(argv[4], "c-alice", none, state, argv[3], alice->socket);
  free(kept);
  while (!alice->connected) {
    if (now_us() > until || alice->ended) {
      fprintf(stderr, "alice did not come back\n");
      return 1;
    }
    pump(alice);
    wait_for(people, 1);
  }
  if (!alice->resumed || alice->heard) {
    fprintf(stderr, "alice came back by her token, or heard something twice\n");
    return 1;
  }
  leave(alice);
  leave(bob);
  close(alice->socket);
  close(bob->socket);
  puts("done");
  return 0;
}

/* The Sluice client for C: no sockets, no clock, no threads. See ffi/README.md.
 *
 * Made from ffi/src by cbindgen: do not edit.
 *
 * After every call that takes the time: send what sluice_transmit gives, until it gives 0,
 * and take the events, until there is none. Then wait for a datagram or for sluice_timeout.
 *
 * A client is for one thread at a time. All functions take null for any pointer and answer
 * SLUICE_STATUS_NULL_POINTER; a pointer that is not null must be what it says it is.
 *
 * now_us: microseconds on any clock that doesn't go back.
 * Statuses are enum sluice_status, as int32_t. */

#ifndef SLUICE_H
#define SLUICE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/**
 * Grows with a change that old programs don't stand.
 */
#define SLUICE_ABI_VERSION 1

/**
 * What a buffer for `sluice_transmit` must hold.
 */
#define SLUICE_DATAGRAM_MAX_BYTES 1452

/**
 * The longest datagram that `sluice_receive` takes.
 */
#define SLUICE_RECEIVE_MAX_BYTES 2048

/**
 * The longest body of a message.
 */
#define SLUICE_BODY_MAX_BYTES 61440

/**
 * No such time: `sluice_timeout` when all is over, `retry_in_ms` when no try comes.
 */
#define SLUICE_NEVER UINT64_MAX

/**
 * What a call says. Negative: it has done nothing, except with `INTERNAL`.
 */
enum sluice_status
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : int32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Done.
   */
  SLUICE_STATUS_OK = 0,
  /**
   * A pointer is null that must not be.
   */
  SLUICE_STATUS_NULL_POINTER = -1,
  /**
   * A length is over its bound.
   */
  SLUICE_STATUS_TOO_LARGE = -2,
  /**
   * The buffer is too small.
   */
  SLUICE_STATUS_SMALL_BUFFER = -3,
  /**
   * A user, device or conversation id is none.
   */
  SLUICE_STATUS_BAD_NAME = -4,
  /**
   * The pins are no keys.
   */
  SLUICE_STATUS_BAD_PINS = -5,
  /**
   * The kept state is damaged, or another user's or device's.
   */
  SLUICE_STATUS_BAD_STATE = -6,
  /**
   * Text that is no UTF-8.
   */
  SLUICE_STATUS_BAD_TEXT = -7,
  /**
   * The random bytes are all the same.
   */
  SLUICE_STATUS_BAD_RANDOM = -8,
  /**
   * Neither a token nor a state.
   */
  SLUICE_STATUS_NO_TOKEN = -9,
  /**
   * A number or a target that is none.
   */
  SLUICE_STATUS_BAD_ARGUMENT = -10,
  /**
   * As many sends wait for their ack as may.
   */
  SLUICE_STATUS_FULL = -11,
  /**
   * The connection has stalled, and as many packets wait for it as may.
   */
  SLUICE_STATUS_STALLED = -12,
  /**
   * As many requests wait for their answer as may.
   */
  SLUICE_STATUS_TOO_MANY = -13,
  /**
   * There is no connection, and repeating this might not be harmless.
   */
  SLUICE_STATUS_NOT_CONNECTED = -14,
  /**
   * A conversation with oneself.
   */
  SLUICE_STATUS_TO_ONESELF = -15,
  /**
   * The client has ended for good.
   */
  SLUICE_STATUS_ENDED = -16,
  /**
   * A fault of this library. The client does nothing any more; free it.
   */
  SLUICE_STATUS_INTERNAL = -17,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sluice_status sluice_status;
#else
typedef int32_t sluice_status;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * What an event tells; in parentheses the fields that say more. Unknown ones are to be passed
 * over: a later library may have more.
 */
enum sluice_event_kind
#if defined(__cplusplus) || __STDC_VERSION__ >= 202311L
  : uint32_t
#endif // defined(__cplusplus) || __STDC_VERSION__ >= 202311L
 {
  /**
   * Nothing.
   */
  SLUICE_EVENT_KIND_NONE = 0,
  /**
   * Logged in (flag: by the resume token).
   */
  SLUICE_EVENT_KIND_CONNECTED = 1,
  /**
   * The connection is gone (code: close reason of the protocol or 0; text; retry_in_ms).
   */
  SLUICE_EVENT_KIND_DISCONNECTED = 2,
  /**
   * The client has ended for good (code: close reason, or error code; text).
   */
  SLUICE_EVENT_KIND_ENDED = 3,
  /**
   * A message, one's own too, in order (conversation, user: the sender, seq, user_seq,
   * message_id, server_time_ms, content_type, body, flag: one's own).
   */
  SLUICE_EVENT_KIND_MESSAGE = 4,
  /**
   * A message was taken back (as MESSAGE; number: its seq).
   */
  SLUICE_EVENT_KIND_RECALLED = 5,
  /**
   * A group's members or name have changed (as MESSAGE without body).
   */
  SLUICE_EVENT_KIND_GROUP_CHANGED = 6,
  /**
   * A message without a promise (conversation, user, server_time_ms, content_type, body).
   */
  SLUICE_EVENT_KIND_EPHEMERAL = 7,
  /**
   * Somebody is writing (conversation, user).
   */
  SLUICE_EVENT_KIND_TYPING = 8,
  /**
   * The other party's device has all up to seq (conversation, user, seq).
   */
  SLUICE_EVENT_KIND_DELIVERED = 9,
  /**
   * Somebody has read up to seq (conversation, user, seq).
   */
  SLUICE_EVENT_KIND_READ = 10,
  /**
   * A send is stored (id, conversation, seq, user_seq, message_id, server_time_ms).
   */
  SLUICE_EVENT_KIND_SENT = 11,
  /**
   * A send will never be stored (id, code: error code of the protocol or 0, text).
   */
  SLUICE_EVENT_KIND_REFUSED = 12,
  /**
   * A request's answer (number: the request, code: the backend's status, body).
   */
  SLUICE_EVENT_KIND_ANSWERED = 13,
  /**
   * A request without an answer (number, code: error code or 0, text).
   */
  SLUICE_EVENT_KIND_UNANSWERED = 14,
  /**
   * All that the server had at the last connect has been told.
   */
  SLUICE_EVENT_KIND_CAUGHT_UP = 15,
  /**
   * The login token ends soon: `sluice_renew_token`.
   */
  SLUICE_EVENT_KIND_TOKEN_WANTED = 16,
  /**
   * The server no longer has, or does not tell, some entries (text).
   */
  SLUICE_EVENT_KIND_GAP = 17,
};
#ifndef __cplusplus
#if __STDC_VERSION__ >= 202311L
typedef enum sluice_event_kind sluice_event_kind;
#else
typedef uint32_t sluice_event_kind;
#endif // __STDC_VERSION__ >= 202311L
#endif // __cplusplus

/**
 * A client: one user on one device. For one thread at a time.
 */
struct sluice_client;

/**
 * Bytes of somebody else. `data` may be null when `len` is 0. Text is UTF-8 without a NUL.
 */
struct sluice_bytes {
  /**
   * Where they begin.
   */
  const uint8_t *data;
  /**
   * How many there are.
   */
  size_t len;
};

/**
 * What a client needs. Nothing of it is kept after the call.
 */
struct sluice_config {
  /**
   * Who logs in: 1 to 64 bytes.
   */
  struct sluice_bytes user;
  /**
   * On which device, by a name that it keeps: 1 to 64 bytes.
   */
  struct sluice_bytes device;
  /**
   * The login token (POST /users/login); may be empty with a state.
   */
  struct sluice_bytes token;
  /**
   * The server's public keys as text (GET /endpoints, `pins`).
   */
  struct sluice_bytes pins;
  /**
   * What `sluice_state` gave in an earlier life, or empty.
   */
  struct sluice_bytes state;
  /**
   * From a cryptographic source and never the same twice: the keys come from it.
   */
  uint8_t random[32];
  /**
   * Unix milliseconds now; 0 where the device doesn't know (the server tells).
   */
  uint64_t unix_ms;
  /**
   * 0 none of these, 1 Android, 2 iOS, 3 web, 4 desktop, 5 game, 6 device, 7 bot.
   */
  uint32_t platform;
  /**
   * The longest datagram that may be tried, 1200 to 1452; 0: 1452. Without "don't
   * fragment" on the socket, 1200.
   */
  uint32_t datagram_max_bytes;
};

/**
 * Where a message goes: one of the two, the other empty.
 */
struct sluice_to {
  /**
   * To the private conversation with this user.
   */
  struct sluice_bytes user;
  /**
   * To a group, or a private conversation by its id.
   */
  struct sluice_bytes conversation;
};

/**
 * This side's name for a send.
 */
struct sluice_id {
  /**
   * Unique over all clients and lives.
   */
  uint8_t bytes[16];
};

/**
 * An event. What its pointers name lives until the next call with this client.
 */
struct sluice_event {
  /**
   * One of `sluice_event_kind`.
   */
  uint32_t kind;
  /**
   * See the kind.
   */
  int32_t code;
  /**
   * See the kind: 0 or 1.
   */
  uint32_t flag;
  /**
   * 0 text, 1 image, 2 file, 3 voice, 4 video, 5 location, 6 system, 7 custom.
   */
  uint32_t content_type;
  /**
   * Of the send.
   */
  struct sluice_id id;
  /**
   * See the kind.
   */
  uint64_t number;
  /**
   * The place in its conversation: 1, 2, 3, … without gaps.
   */
  uint64_t seq;
  /**
   * The place in this user's inbox; 0 for groups.
   */
  uint64_t user_seq;
  /**
   * The server's name for it.
   */
  uint64_t message_id;
  /**
   * When it was stored or passed on, in Unix milliseconds by the server.
   */
  uint64_t server_time_ms;
  /**
   * When the next try to connect comes, or `SLUICE_NEVER`.
   */
  uint64_t retry_in_ms;
  /**
   * Its id.
   */
  struct sluice_bytes conversation;
  /**
   * Who.
   */
  struct sluice_bytes user;
  /**
   * What was said.
   */
  struct sluice_bytes body;
  /**
   * For people.
   */
  struct sluice_bytes text;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * `SLUICE_ABI_VERSION` of the library, to be held against that of the header.
 */
uint32_t sluice_abi_version(void);

/**
 * A client that begins to connect, in `*client`. To be freed by `sluice_free`.
 *
 * # Safety
 * `config` and what its bytes name is readable, `client` writable.
 */
int32_t sluice_connect(const struct sluice_config *config,
                       uint64_t now_us,
                       struct sluice_client **client);

/**
 * Takes a datagram from the server's address; anything else is passed over.
 *
 * # Safety
 * `client` is a client; `len` bytes at `datagram` are readable.
 */
int32_t sluice_receive(struct sluice_client *client,
                       const uint8_t *datagram,
                       size_t len,
                       uint64_t now_us);

/**
 * Writes the next datagram for the server to `buffer`, which holds `cap` bytes, at least
 * `SLUICE_DATAGRAM_MAX_BYTES`. Returns its length, 0 if none is due, or a status. To be called
 * until it returns 0, after every call that takes the time.
 *
 * # Safety
 * `client` is a client; `cap` bytes at `buffer` are writable.
 */
int32_t sluice_transmit(struct sluice_client *client,
                        uint8_t *buffer,
                        size_t cap,
                        uint64_t now_us);

/**
 * When `sluice_on_timeout` must be called if nothing comes before, by the clock of `now_us`;
 * `SLUICE_NEVER` when all is over.
 *
 * # Safety
 * `client` is a client.
 */
uint64_t sluice_timeout(struct sluice_client *client);

/**
 * Time has passed. An early call does nothing.
 *
 * # Safety
 * `client` is a client.
 */
int32_t sluice_on_timeout(struct sluice_client *client, uint64_t now_us);

/**
 * Takes a message to be stored, once and in the order of these calls, whatever the network
 * does. Its name is written to `id` unless that is null; SENT or REFUSED carries it.
 *
 * # Safety
 * `client` is a client; what `to` and `body` name is readable; `id` is null or writable.
 */
int32_t sluice_send(struct sluice_client *client,
                    struct sluice_to to,
                    uint32_t content_type,
                    struct sluice_bytes body,
                    uint64_t now_us,
                    struct sluice_id *id);

/**
 * Tells whoever is online now: no order, no second try, lost when not connected.
 *
 * # Safety
 * `client` is a client; what `to` and `body` name is readable.
 */
int32_t sluice_send_ephemeral(struct sluice_client *client,
                              struct sluice_to to,
                              uint32_t content_type,
                              struct sluice_bytes body,
                              uint64_t now_us);

/**
 * Says that this user is writing. Lost when not connected; only the newest counts.
 *
 * # Safety
 * `client` is a client; what `to` names is readable.
 */
int32_t sluice_typing(struct sluice_client *client, struct sluice_to to, uint64_t now_us);

/**
 * Says that this user has read a conversation up to `seq`; kept until it could be sent.
 *
 * # Safety
 * `client` is a client; what `conversation` names is readable.
 */
int32_t sluice_read(struct sluice_client *client,
                    struct sluice_bytes conversation,
                    uint64_t seq,
                    uint64_t now_us);

/**
 * Asks a backend service; those of one key are handled in order. Its number is written to
 * `request`; ANSWERED or UNANSWERED carries it. Service, key and payload together have at
 * most `SLUICE_BODY_MAX_BYTES`.
 *
 * # Safety
 * `client` is a client; what the bytes name is readable; `request` is writable.
 */
int32_t sluice_request(struct sluice_client *client,
                       struct sluice_bytes service,
                       struct sluice_bytes key,
                       struct sluice_bytes payload,
                       uint32_t timeout_ms,
                       uint64_t now_us,
                       uint64_t *request);

/**
 * A fresh login token, for this connection and later logins.
 *
 * # Safety
 * `client` is a client; what `token` names is readable.
 */
int32_t sluice_renew_token(struct sluice_client *client,
                           struct sluice_bytes token,
                           uint64_t now_us);

/**
 * Writes the next event. Returns 1, 0 if there is none, or a status. What the event points to
 * lives until the next call with this client. Taking an event says that the application is
 * done with the one before: a later life (`sluice_state`) won't be told that again.
 *
 * # Safety
 * `client` is a client; `event` is writable.
 */
int32_t sluice_next_event(struct sluice_client *client,
                          struct sluice_event *event,
                          uint64_t now_us);

/**
 * The network has changed, or the socket is another one: the session goes on from there.
 *
 * # Safety
 * `client` is a client.
 */
int32_t sluice_rebind(struct sluice_client *client, uint64_t now_us);

/**
 * For how many microseconds nothing has come from a server that owed something. After two or
 * three seconds another socket may help, and `sluice_rebind`.
 *
 * # Safety
 * `client` is a client.
 */
uint64_t sluice_silence(struct sluice_client *client, uint64_t now_us);

/**
 * Leaves for good; what there is to say to the server goes out by `sluice_transmit`. Unacked
 * sends stay in the state. `logout` other than 0 also forgets the resume token.
 *
 * # Safety
 * `client` is a client.
 */
int32_t sluice_close(struct sluice_client *client, int32_t logout, uint64_t now_us);

/**
 * Writes what a later life goes on from to `buffer`, and its length to `len`; if that is over
 * `cap`, only the length (`SMALL_BUFFER`). It holds secrets, and is good for one later life.
 *
 * # Safety
 * `client` is a client; `cap` bytes at `buffer` are writable, `len` too.
 */
int32_t sluice_state(struct sluice_client *client, uint8_t *buffer, size_t cap, size_t *len);

/**
 * Grows whenever `sluice_state` would give something else; 0 for no client.
 *
 * # Safety
 * `client` is a client.
 */
uint64_t sluice_revision(struct sluice_client *client);

/**
 * Frees a client; null is passed over. Without `sluice_close` the server hears nothing.
 *
 * # Safety
 * `client` is null or a client, which is none afterwards.
 */
void sluice_free(struct sluice_client *client);

/**
 * What a negative status means, in English. Lives forever.
 */
const char *sluice_error_text(int32_t status);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* SLUICE_H */

/* The bytes of a C string, without its NUL; none for null. */
static inline struct sluice_bytes sluice_text(const char *text) {
  struct sluice_bytes bytes;
  bytes.data = (const uint8_t *)text;
  bytes.len = text ? strlen(text) : 0;
  return bytes;
}

/* To the private conversation with this user. */
static inline struct sluice_to sluice_to_user(const char *user) {
  struct sluice_to to;
  to.user = sluice_text(user);
  to.conversation = sluice_text(0);
  return to;
}

// SPDX-License-Identifier: Apache-2.0

// A client without a gRPC library: TLS by OpenSSL, HTTP/2 by nghttp2, messages by protobuf-c, and the five bytes that
// gRPC puts before each message by hand.
//
//   client HOST PORT TLS-NAME PROFILE FILE [anonymous]
//
// says what Stat and Read have to say about FILE. Each call is a line on standard output:
//
//   stat FILE: 12 bytes, mode 0644, owner /owner, version 3
//   read FILE: 12 bytes, sha256 <64 digits>
//   stat FILE: grpc-status 5, There is no such file.
//
// Exit status: 0 when both calls came to an answer, a refusal included; 1 when there was no connection or no answer.

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "blocktree/v1/filesystem.pb-c.h"

enum { PREFIX = 5, MESSAGE_MAX = 8 << 20 };

static void fail(const char *what, const char *why)
{
    fprintf(stderr, "client: %s: %s\n", what, why);
    exit(1);
}

static void fail_tls(const char *what)
{
    char why[256];
    ERR_error_string_n(ERR_get_error(), why, sizeof why);
    fail(what, why);
}

static void *require(void *memory)
{
    if (memory == NULL)
        fail("memory", strerror(ENOMEM));
    return memory;
}

// MARK: TLS

static int dial(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    struct addrinfo *found;
    int error = getaddrinfo(host, port, &hints, &found);
    if (error != 0)
        fail(host, gai_strerror(error));
    int file = -1;
    for (struct addrinfo *address = found; address != NULL; address = address->ai_next) {
        file = socket(address->ai_family, address->ai_socktype, address->ai_protocol);
        if (file >= 0 && connect(file, address->ai_addr, address->ai_addrlen) == 0)
            break;
        if (file >= 0)
            close(file);
        file = -1;
    }
    freeaddrinfo(found);
    if (file < 0)
        fail(host, strerror(errno));
    int one = 1;
    setsockopt(file, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return file;
}

// Shows the profile's credential, and accepts nobody but the process that the domain's root certified for this name.
static SSL *secure(int file, const char *name, const char *profile, bool anonymous)
{
    char path[4096];
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) != 1)
        fail_tls("TLS");
    snprintf(path, sizeof path, "%s/root.pem", profile);
    if (SSL_CTX_load_verify_file(context, path) != 1)
        fail_tls(path);
    if (!anonymous) {
        snprintf(path, sizeof path, "%s/credential.pem", profile);
        if (SSL_CTX_use_certificate_chain_file(context, path) != 1)
            fail_tls(path);
        snprintf(path, sizeof path, "%s/key.pem", profile);
        // The file's first block is an ordinary private key.
        if (SSL_CTX_use_PrivateKey_file(context, path, SSL_FILETYPE_PEM) != 1 || SSL_CTX_check_private_key(context) != 1)
            fail_tls(path);
    }

    SSL *tls = SSL_new(context);
    SSL_CTX_free(context);
    if (tls == NULL)
        fail_tls("TLS");
    SSL_set_verify(tls, SSL_VERIFY_PEER, NULL);
    X509_VERIFY_PARAM *verification = SSL_get0_param(tls);
    X509_VERIFY_PARAM_set_hostflags(verification, X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (X509_VERIFY_PARAM_set1_host(verification, name, 0) != 1 || SSL_set_tlsext_host_name(tls, name) != 1)
        fail_tls(name);
    static const unsigned char protocols[] = "\x02h2";
    if (SSL_set_alpn_protos(tls, protocols, sizeof protocols - 1) != 0)
        fail_tls("ALPN");
    if (SSL_set_fd(tls, file) != 1)
        fail_tls("TLS");
    if (SSL_connect(tls) != 1) {
        long verdict = SSL_get_verify_result(tls);
        if (verdict != X509_V_OK)
            fail("the process is not the expected one", X509_verify_cert_error_string(verdict));
        fail_tls("handshake");
    }
    const unsigned char *protocol;
    unsigned int length;
    SSL_get0_alpn_selected(tls, &protocol, &length);
    if (length != 2 || memcmp(protocol, "h2", 2) != 0)
        fail("ALPN", "the process does not speak HTTP/2");
    return tls;
}

// MARK: One gRPC call

typedef void message_handler(const uint8_t *bytes, size_t count, void *into);

struct call {
    // The request: one message.
    uint8_t *request;
    size_t request_size, request_sent;
    // What has come of the message that is being received, its prefix included.
    uint8_t *message;
    size_t message_size, message_room;
    message_handler *take;
    void *into;
    // How it ended: -1 as long as no status has come.
    int status;
    char reason[256];
    bool closed;
};

static ssize_t send_request(
    nghttp2_session *session, int32_t stream, uint8_t *into, size_t room, uint32_t *flags, nghttp2_data_source *source,
    void *connection)
{
    (void)session, (void)stream, (void)connection;
    struct call *call = source->ptr;
    size_t count = call->request_size - call->request_sent;
    if (count > room)
        count = room;
    memcpy(into, call->request + call->request_sent, count);
    call->request_sent += count;
    if (call->request_sent == call->request_size)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)count;
}

static int on_header(
    nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size, const uint8_t *value,
    size_t value_size, uint8_t flags, void *connection)
{
    (void)flags, (void)connection;
    struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (call == NULL)
        return 0;
    if (name_size == 11 && memcmp(name, "grpc-status", 11) == 0)
        call->status = atoi((const char *)value);
    if (name_size == 12 && memcmp(name, "grpc-message", 12) == 0)
        snprintf(call->reason, sizeof call->reason, "%.*s", (int)value_size, (const char *)value);
    if (name_size == 7 && memcmp(name, ":status", 7) == 0 && (value_size != 3 || memcmp(value, "200", 3) != 0))
        fail("HTTP status", (const char *)value);
    return 0;
}

// Puts messages together: they know nothing of HTTP/2 frames.
static int on_data(
    nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *bytes, size_t count, void *connection)
{
    (void)flags, (void)connection;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    while (call != NULL && count > 0) {
        size_t wanted = PREFIX;
        if (call->message_size >= PREFIX) {
            const uint8_t *p = call->message;
            size_t length = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
            if (p[0] != 0)
                fail("message", "it is compressed, which nobody asked for");
            if (length > MESSAGE_MAX)
                fail("message", "it is too large");
            wanted += length;
        }
        if (wanted > call->message_room) {
            call->message = require(realloc(call->message, wanted));
            call->message_room = wanted;
        }
        size_t step = wanted - call->message_size;
        if (step > count)
            step = count;
        memcpy(call->message + call->message_size, bytes, step);
        call->message_size += step;
        bytes += step;
        count -= step;
        // A prefix alone is a message only if it says that nothing follows.
        const uint8_t *p = call->message;
        bool is_whole = call->message_size == wanted && (wanted > PREFIX || (p[1] | p[2] | p[3] | p[4]) == 0);
        if (is_whole && call->message_size >= PREFIX) {
            call->take(p + PREFIX, wanted - PREFIX, call->into);
            call->message_size = 0;
        }
    }
    return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t error, void *connection)
{
    (void)error, (void)connection;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    if (call != NULL)
        call->closed = true;
    return 0;
}

static nghttp2_session *begin_http2(void)
{
    nghttp2_session_callbacks *callbacks;
    nghttp2_session *session;
    if (nghttp2_session_callbacks_new(&callbacks) != 0)
        fail("HTTP/2", strerror(ENOMEM));
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
    if (nghttp2_session_client_new(&session, callbacks, NULL) != 0)
        fail("HTTP/2", strerror(ENOMEM));
    nghttp2_session_callbacks_del(callbacks);
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20},
    };
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings);
    return session;
}

static void flush(nghttp2_session *session, SSL *tls)
{
    const uint8_t *bytes;
    ssize_t count;
    while ((count = nghttp2_session_mem_send(session, &bytes)) > 0)
        if (SSL_write(tls, bytes, (int)count) <= 0)
            fail_tls("send");
    if (count < 0)
        fail("HTTP/2", nghttp2_strerror((int)count));
}

#define HEADER(name, value)                                                                                            \
    {(uint8_t *)(name), (uint8_t *)(value), strlen(name), strlen(value), NGHTTP2_NV_FLAG_NONE}

// Sends one message, hands over each that comes back, and returns when the call has ended.
static void perform(
    nghttp2_session *session, SSL *tls, const char *host, const char *method, const ProtobufCMessage *request,
    struct call *call)
{
    size_t size = protobuf_c_message_get_packed_size(request);
    call->request_size = PREFIX + size;
    call->request = require(malloc(call->request_size));
    call->request[0] = 0;
    for (int index = 0; index < 4; index++)
        call->request[1 + index] = (uint8_t)(size >> (24 - 8 * index));
    protobuf_c_message_pack(request, call->request + PREFIX);
    call->status = -1;

    const nghttp2_nv headers[] = {
        HEADER(":method", "POST"), HEADER(":scheme", "https"), HEADER(":path", method), HEADER(":authority", host),
        HEADER("content-type", "application/grpc"), HEADER("te", "trailers"), HEADER("grpc-timeout", "30S"),
    };
    nghttp2_data_provider body = {{.ptr = call}, send_request};
    if (nghttp2_submit_request(session, NULL, headers, sizeof headers / sizeof *headers, &body, call) < 0)
        fail("HTTP/2", "no stream is left");
    while (!call->closed) {
        flush(session, tls);
        uint8_t bytes[16384];
        int count = SSL_read(tls, bytes, sizeof bytes);
        if (count <= 0)
            fail("receive", "the process has closed the connection");
        ssize_t taken = nghttp2_session_mem_recv(session, bytes, (size_t)count);
        if (taken < 0)
            fail("HTTP/2", nghttp2_strerror((int)taken));
    }
    flush(session, tls);
    if (call->status < 0)
        fail(method, "the call ended without a status");
    free(call->request);
    free(call->message);
}

// MARK: The two calls

struct description {
    Blocktree__V1__StatResponse *response;
};

static void take_stat(const uint8_t *bytes, size_t count, void *into)
{
    struct description *description = into;
    if (description->response != NULL)
        fail("stat", "there are two answers");
    description->response = blocktree__v1__stat_response__unpack(NULL, count, bytes);
    if (description->response == NULL || description->response->info == NULL)
        fail("stat", "the answer is malformed");
}

static void stat_file(nghttp2_session *session, SSL *tls, const char *host, char *path)
{
    Blocktree__V1__StatRequest request = BLOCKTREE__V1__STAT_REQUEST__INIT;
    request.path = path;
    struct description found = {NULL};
    struct call call = {.take = take_stat, .into = &found};
    perform(session, tls, host, "/blocktree.v1.FilesystemService/Stat", &request.base, &call);
    if (call.status != 0 || found.response == NULL) {
        printf("stat %s: grpc-status %d, %s\n", path, call.status, call.reason);
    } else {
        const Blocktree__V1__FileInfo *info = found.response->info;
        printf("stat %s: %" PRIu64 " bytes, mode %04" PRIo32 ", owner %s, version %" PRIu64 "\n", path, info->size,
            info->mode, info->owner, info->version);
    }
    if (found.response != NULL)
        blocktree__v1__stat_response__free_unpacked(found.response, NULL);
}

struct content {
    EVP_MD_CTX *digest;
    uint64_t size;
};

static void take_part(const uint8_t *bytes, size_t count, void *into)
{
    struct content *content = into;
    Blocktree__V1__ReadResponse *part = blocktree__v1__read_response__unpack(NULL, count, bytes);
    if (part == NULL)
        fail("read", "the answer is malformed");
    EVP_DigestUpdate(content->digest, part->data.data, part->data.len);
    content->size += part->data.len;
    blocktree__v1__read_response__free_unpacked(part, NULL);
}

static void read_file(nghttp2_session *session, SSL *tls, const char *host, char *path)
{
    Blocktree__V1__ReadRequest request = BLOCKTREE__V1__READ_REQUEST__INIT;
    request.path = path;
    struct content content = {require(EVP_MD_CTX_new()), 0};
    EVP_DigestInit_ex(content.digest, EVP_sha256(), NULL);
    struct call call = {.take = take_part, .into = &content};
    perform(session, tls, host, "/blocktree.v1.FilesystemService/Read", &request.base, &call);
    if (call.status != 0) {
        printf("read %s: grpc-status %d, %s\n", path, call.status, call.reason);
    } else {
        unsigned char digest[EVP_MAX_MD_SIZE];
        unsigned int length;
        EVP_DigestFinal_ex(content.digest, digest, &length);
        printf("read %s: %" PRIu64 " bytes, sha256 ", path, content.size);
        for (unsigned int index = 0; index < length; index++)
            printf("%02x", digest[index]);
        printf("\n");
    }
    EVP_MD_CTX_free(content.digest);
}

int main(int count, char **arguments)
{
    if (count < 6 || count > 7) {
        fprintf(stderr, "usage: client HOST PORT TLS-NAME PROFILE FILE [anonymous]\n");
        return 64;
    }
    char *host = arguments[1], *port = arguments[2], *name = arguments[3], *profile = arguments[4], *path = arguments[5];
    SSL *tls = secure(dial(host, port), name, profile, count == 7);
    nghttp2_session *session = begin_http2();
    stat_file(session, tls, name, path);
    read_file(session, tls, name, path);
    nghttp2_session_terminate_session(session, NGHTTP2_NO_ERROR);
    flush(session, tls);
    nghttp2_session_del(session);
    SSL_shutdown(tls);
    SSL_free(tls);
    return 0;
}

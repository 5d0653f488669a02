/*
 * A smartcard reader that a test holds in its hands: an IFD handler (pcsc-lite's ifdhandler.h,
 * version 3) which decides nothing. Each call of pcscd goes to the test over a socket, and what
 * the test answers is what pcscd is told; so a test can show every reader and every card.
 *
 * The socket is a Unix one of the type SOCK_SEQPACKET, its path in CARDSESSION_IFD; the test
 * listens. Each slot has two connections:
 *
 *   calls    first packet  'O', slot (4 bytes), device name
 *            then          one packet a call: a letter (see below) and its arguments
 *            answer        response code (4 bytes), and what belongs to the call
 *   events   first packet  'E', slot (4 bytes), device name
 *            then          any packet from the test: look whether there is a card, now
 *
 * Numbers are little-endian. A connection that the test closes is a reader that is gone.
 */
#include <PCSC/ifdhandler.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define READERS 16 /* pcscd's limit */
#define SLOTS 8
#define LONGEST (1 << 17) /* of a packet: an extended APDU and what goes with it */
#define NUMBER 4

enum call {
	CALL_OPEN = 'O',     /* -> code */
	CALL_EVENTS = 'E',   /* no answer */
	CALL_GET = 'G',      /* tag -> code, value */
	CALL_SET = 'S',      /* tag, value -> code */
	CALL_PROTOCOL = 'N', /* protocol -> code */
	CALL_POWER = 'P',    /* action -> code, ATR */
	CALL_PRESENCE = 'I', /* -> code */
	CALL_TRANSMIT = 'T', /* command APDU -> code, response */
	CALL_CONTROL = 'X',  /* control code, data -> code, answer */
};

struct slot {
	pthread_mutex_t lock; /* one call at a time, whatever pcscd believes about threads */
	int calls, events;    /* sockets */
	int stop;             /* an eventfd that ends the wait for events */
	int open;
};

static struct slot slots[READERS][SLOTS];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void prepare(void)
{
	for (int reader = 0; reader < READERS; reader++)
		for (int slot = 0; slot < SLOTS; slot++)
			pthread_mutex_init(&slots[reader][slot].lock, NULL);
}

/* The slot of a logical unit number 0xRRRRSSSS; NULL if there can be no such reader. */
static struct slot *slot_of(DWORD lun)
{
	DWORD reader = lun >> 16, slot = lun & 0xFFFF;

	pthread_once(&once, prepare);
	return reader < READERS && slot < SLOTS ? &slots[reader][slot] : NULL;
}

static void put_number(unsigned char *at, uint32_t number)
{
	for (int i = 0; i < NUMBER; i++)
		at[i] = number >> 8 * i & 0xFF;
}

static uint32_t number_at(const unsigned char *at)
{
	uint32_t number = 0;

	for (int i = 0; i < NUMBER; i++)
		number |= (uint32_t)at[i] << 8 * i;
	return number;
}

static int connected(void)
{
	const char *path = getenv("CARDSESSION_IFD");
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int line;

	if (path == NULL || strlen(path) >= sizeof(address.sun_path))
		return -1;
	strcpy(address.sun_path, path);
	line = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (line >= 0 && connect(line, (struct sockaddr *)&address, sizeof(address)) < 0) {
		close(line);
		return -1;
	}
	return line;
}

/* One packet: letter, number if `numbered`, data. 0 if it went out. */
static int say(int line, enum call call, int numbered, uint32_t number, const void *data,
	       size_t length)
{
	unsigned char head[1 + NUMBER] = {call};
	struct iovec parts[] = {
		{head, numbered ? sizeof(head) : 1},
		{(void *)data, length},
	};
	struct msghdr packet = {.msg_iov = parts, .msg_iovlen = 2};

	put_number(head + 1, number);
	return sendmsg(line, &packet, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* Waits for the answer, however long: its code; the rest of it in `answer`, and its length.
 * `gone` where the test has closed the line. */
static RESPONSECODE heard(int line, void *answer, DWORD *length, RESPONSECODE gone)
{
	unsigned char *packet = malloc(LONGEST);
	RESPONSECODE code = gone;
	ssize_t size;
	size_t rest;

	if (packet == NULL)
		return IFD_COMMUNICATION_ERROR;
	do
		size = recv(line, packet, LONGEST, 0);
	while (size < 0 && errno == EINTR);
	if (size >= NUMBER) {
		rest = size - NUMBER;
		code = number_at(packet);
		if (length != NULL && rest > *length)
			code = IFD_ERROR_INSUFFICIENT_BUFFER;
		else if (length != NULL) {
			memcpy(answer, packet + NUMBER, rest);
			*length = rest;
		}
	}
	free(packet);
	return code;
}

/* Asks the test. `length`: room for the answer, then its size; NULL where none is wanted. */
static RESPONSECODE ask(DWORD lun, enum call call, int numbered, uint32_t number,
			const void *data, size_t size, void *answer, DWORD *length)
{
	struct slot *slot = slot_of(lun);
	RESPONSECODE code = IFD_COMMUNICATION_ERROR;

	if (slot == NULL || !slot->open)
		return IFD_COMMUNICATION_ERROR;
	pthread_mutex_lock(&slot->lock);
	if (say(slot->calls, call, numbered, number, data, size) == 0)
		code = heard(slot->calls, answer, length, IFD_COMMUNICATION_ERROR);
	pthread_mutex_unlock(&slot->lock);
	return code;
}

/* pcscd's own thread waits here for cards to come and go: until the test says that one did, or
 * the time is over. */
static RESPONSECODE wait_for_event(DWORD lun, int msec)
{
	struct slot *slot = slot_of(lun);
	struct pollfd lines[2];
	char packet[16];
	eventfd_t stops;

	if (slot == NULL || !slot->open)
		return IFD_NO_SUCH_DEVICE;
	lines[0] = (struct pollfd){.fd = slot->events, .events = POLLIN};
	lines[1] = (struct pollfd){.fd = slot->stop, .events = POLLIN};
	if (poll(lines, 2, msec) > 0 && lines[0].revents != 0 &&
	    recv(slot->events, packet, sizeof(packet), MSG_DONTWAIT) == 0)
		return IFD_NO_SUCH_DEVICE;
	eventfd_read(slot->stop, &stops);
	return IFD_SUCCESS;
}

/* Called from another thread when the reader goes, and whenever a program lets go of a card. */
static RESPONSECODE stop_waiting(DWORD lun)
{
	struct slot *slot = slot_of(lun);

	if (slot != NULL && slot->open)
		eventfd_write(slot->stop, 1);
	return IFD_SUCCESS;
}

static void hang_up(struct slot *slot)
{
	int lines[] = {slot->calls, slot->events, slot->stop};

	slot->open = 0;
	for (int i = 0; i < 3; i++)
		if (lines[i] >= 0)
			close(lines[i]);
}

RESPONSECODE IFDHCreateChannelByName(DWORD lun, LPSTR device)
{
	struct slot *slot = slot_of(lun);
	RESPONSECODE code = IFD_COMMUNICATION_ERROR;
	size_t length = strlen(device);

	if (slot == NULL)
		return IFD_COMMUNICATION_ERROR;
	slot->calls = connected();
	slot->events = connected();
	slot->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (slot->calls >= 0 && slot->events >= 0 && slot->stop >= 0 &&
	    say(slot->calls, CALL_OPEN, 1, lun & 0xFFFF, device, length) == 0)
		code = heard(slot->calls, NULL, NULL, IFD_COMMUNICATION_ERROR);
	if (code == IFD_SUCCESS &&
	    say(slot->events, CALL_EVENTS, 1, lun & 0xFFFF, device, length) < 0)
		code = IFD_COMMUNICATION_ERROR;
	slot->open = 1;
	if (code != IFD_SUCCESS)
		hang_up(slot);
	return code;
}

/* A reader without a device name has no place in the test. */
RESPONSECODE IFDHCreateChannel(DWORD lun, DWORD channel)
{
	(void)lun;
	(void)channel;
	return IFD_COMMUNICATION_ERROR;
}

RESPONSECODE IFDHCloseChannel(DWORD lun)
{
	struct slot *slot = slot_of(lun);

	if (slot == NULL || !slot->open)
		return IFD_COMMUNICATION_ERROR;
	hang_up(slot);
	return IFD_SUCCESS;
}

/* A pointer to one of our functions, as pcscd wants to have it. */
static RESPONSECODE function(RESPONSECODE code, void *address, DWORD *length, UCHAR *value)
{
	if (code != IFD_SUCCESS || *length < sizeof(address))
		return IFD_ERROR_TAG;
	memcpy(value, &address, sizeof(address));
	*length = sizeof(address);
	return IFD_SUCCESS;
}

/* Whether there are events is the test's to say: it answers these tags without a value. */
RESPONSECODE IFDHGetCapabilities(DWORD lun, DWORD tag, PDWORD length, PUCHAR value)
{
	DWORD none = 0;

	switch (tag) {
	case TAG_IFD_POLLING_THREAD_WITH_TIMEOUT:
		return function(ask(lun, CALL_GET, 1, tag, NULL, 0, value, &none),
				(void *)wait_for_event, length, value);
	case TAG_IFD_STOP_POLLING_THREAD:
		return function(ask(lun, CALL_GET, 1, tag, NULL, 0, value, &none),
				(void *)stop_waiting, length, value);
	default:
		return ask(lun, CALL_GET, 1, tag, NULL, 0, value, length);
	}
}

RESPONSECODE IFDHSetCapabilities(DWORD lun, DWORD tag, DWORD length, PUCHAR value)
{
	return ask(lun, CALL_SET, 1, tag, value, length, NULL, NULL);
}

RESPONSECODE IFDHSetProtocolParameters(DWORD lun, DWORD protocol, UCHAR flags, UCHAR pts1,
				       UCHAR pts2, UCHAR pts3)
{
	(void)flags, (void)pts1, (void)pts2, (void)pts3;
	return ask(lun, CALL_PROTOCOL, 1, protocol, NULL, 0, NULL, NULL);
}

RESPONSECODE IFDHPowerICC(DWORD lun, DWORD action, PUCHAR atr, PDWORD length)
{
	RESPONSECODE code;

	*length = MAX_ATR_SIZE;
	code = ask(lun, CALL_POWER, 1, action, NULL, 0, atr, length);
	if (code != IFD_SUCCESS)
		*length = 0;
	return code;
}

RESPONSECODE IFDHTransmitToICC(DWORD lun, SCARD_IO_HEADER sent, PUCHAR command, DWORD size,
			       PUCHAR response, PDWORD length, PSCARD_IO_HEADER received)
{
	RESPONSECODE code = ask(lun, CALL_TRANSMIT, 0, 0, command, size, response, length);

	if (received != NULL)
		received->Protocol = sent.Protocol;
	if (code != IFD_SUCCESS)
		*length = 0;
	return code;
}

RESPONSECODE IFDHControl(DWORD lun, DWORD control, PUCHAR data, DWORD size, PUCHAR answer,
			 DWORD room, LPDWORD length)
{
	RESPONSECODE code;

	*length = room;
	code = ask(lun, CALL_CONTROL, 1, control, data, size, answer, length);
	if (code != IFD_SUCCESS)
		*length = 0;
	return code;
}

RESPONSECODE IFDHICCPresence(DWORD lun)
{
	return ask(lun, CALL_PRESENCE, 0, 0, NULL, 0, NULL, NULL);
}

// Reads events, one a line, with the SDK whose package file is the first argument, and prints for each line what is wrong with
// it: nothing, if the SDK takes it for what it is.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const { HTTP } = createRequire(process.argv[2])("cloudevents");
const headers = { "content-type": "application/cloudevents+json" };

// What the SDK gives back is compared with what was sent: it must not have dropped or changed anything.
function fault(line) {
  try {
    const event = HTTP.toEvent({ headers, body: line });
    event.validate();
    const sent = JSON.parse(line);
    for (const [name, value] of Object.entries(sent)) {
      const read = name === "time" ? new Date(event.time).getTime() : JSON.stringify(event[name]);
      const expected = name === "time" ? new Date(value).getTime() : JSON.stringify(value);
      if (read !== expected) return `${name} is ${read}`;
    }
    return "";
  } catch (error) {
    return `${error.message} ${JSON.stringify(error.errors ?? "")}`.replaceAll("\n", " ");
  }
}

for (const line of readFileSync(0, "utf8").split("\n").filter(Boolean)) console.log(fault(line));
